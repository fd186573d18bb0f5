//! What cannot start says so, with its cure, before anything is sent.

use std::fs;

use crate::agent::{Dir, Start};
use crate::fake::{Platform, Reply};

async fn never_called() -> Platform {
    Platform::start(|_, _| Reply::Lost).await
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_127() {
    let (platform, dir) = (never_called().await, Dir::new());
    let mut agent = Start::of(&platform, &dir).args(&["--", "no-such-program", "--flag"]).go();
    assert_eq!(agent.ended().await.code(), Some(127));
    let said = dir.text("stderr");
    assert!(said.contains("error: cannot start no-such-program: "), "{said}");
    assert_eq!(said.matches("cannot start").count(), 1, "{said}");
    assert!(said.contains("hint: "), "{said}");
    assert!(platform.calls().is_empty());
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_126() {
    let (platform, dir) = (never_called().await, Dir::new());
    fs::write(dir.path("data"), "no program").expect("written");
    let program = dir.path("data").display().to_string();
    let mut agent = Start::of(&platform, &dir).args(&["--", &program]).go();
    assert_eq!(agent.ended().await.code(), Some(126));
    assert!(platform.calls().is_empty());
}

#[tokio::test]
async fn all_bad_settings_are_named_at_once() {
    let dir = Dir::new();
    let mut agent = Start::bare(&dir).env("WORKSPACE_ID", "Not An Id").go();
    assert_eq!(agent.ended().await.code(), Some(2));
    let said = dir.text("stderr");
    assert!(said.contains("PLATFORM_URL") && said.contains("WORKSPACE_ID"), "{said}");
    assert_eq!(said.matches("hint: ").count(), 2, "{said}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_is_named_with_its_cure() {
    let (platform, dir) = (never_called().await, Dir::new());
    fs::write(dir.path("file"), "").expect("written");
    let configs = dir.path("file/configs").display().to_string();
    let mut agent = Start::of(&platform, &dir).env("CONFIGS_DIR", &configs).go();
    assert_eq!(agent.ended().await.code(), Some(1));
    let said = dir.text("stderr");
    assert!(said.contains(&format!("error: cannot write {configs}")), "{said}");
    assert!(said.contains("--configs-dir"), "{said}");
    assert!(platform.calls().is_empty());
}

#[tokio::test]
async fn a_descriptor_0_that_is_no_socket_is_said() {
    let (platform, dir) = (never_called().await, Dir::new());
    let mut agent = Start::of(&platform, &dir).env("LIGAND_LISTEN_STDIN", "1").go();
    assert_eq!(agent.ended().await.code(), Some(1));
    assert!(dir.text("stderr").contains("descriptor 0 is not a TCP socket"));
}

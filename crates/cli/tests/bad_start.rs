//! Servers that cannot start: they say what is wrong and what to do, and leave nothing behind.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::run::Ran;
use crate::stack::Stack;

fn stack(vars: &[(&str, &str)]) -> Stack {
    Stack::prepare(&["serve", "platform"], vars)
}

/// What was refused, in so many words: an error, at least these words, and a hint.
#[track_caller]
fn refused(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{}", ran.transcript());
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("error: ") && ran.stderr.contains("hint: "), "{}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "`{word}` is missing: {}", ran.stderr);
    }
}

/// Neither a record for client verbs nor anything in the data directory but a lock that nobody holds.
#[track_caller]
fn nothing_left(stack: &Stack) {
    assert!(!stack.record().exists());
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    let mut left = names(&stack.data());
    left.retain(|name| name != "ligand.lock");
    assert_eq!(left, [""; 0]);
}

/// Runs SQL on the SQLite file of a server that does not run.
fn sql(stack: &Stack, text: &'static str) -> u64 {
    let options = SqliteConnectOptions::new().filename(stack.data().join("ligand.db"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let done = sqlx::query(text).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        done.rows_affected()
    })
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for verb in [&["up"][..], &["serve", "platform"]] {
        let mut stack = Stack::prepare(verb, &[]);
        let ran = stack.run_server(&["--listen", &address]);
        let listen = format!("error: cannot listen on {address}");
        refused(&ran, 1, &[&listen, "cause: Address already in use", "--listen (LIGAND_LISTEN)"]);
        nothing_left(&stack);
        stack.restart();
    }
}

#[test]
fn a_data_directory_below_a_file() {
    let stack = stack(&[]);
    fs::write(stack.dir().join("file"), "").unwrap();
    let below = stack.dir().join("file/data");
    let ran = stack.run_server(&["--data-dir", below.to_str().unwrap()]);
    refused(
        &ran,
        1,
        &["cannot use the data directory HOME/file/data", "Not a directory", "--data-dir"],
    );
    nothing_left(&stack);
}

#[test]
fn a_database_that_a_newer_version_wrote() {
    let mut stack = stack(&[]);
    stack.restart();
    assert_eq!(stack.stop_server(), Some(0));
    let newer =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'of the future', TRUE, x'00', 0)";
    assert_eq!(sql(&stack, newer), 1);
    let before = fs::read(stack.data().join("ligand.db")).unwrap();
    let ran = stack.run_server(&[]);
    refused(&ran, 1, &["ligand.db is newer than this binary", "9999", "changed nothing"]);
    assert!(fs::read(stack.data().join("ligand.db")).unwrap() == before, "it changed something");
    assert!(!stack.record().exists());
    assert_eq!(sql(&stack, "DELETE FROM _sqlx_migrations WHERE version = 9999"), 1);
    stack.restart();
}

#[test]
fn a_file_that_is_no_database() {
    let stack = stack(&[]);
    fs::create_dir(stack.data()).unwrap();
    fs::write(stack.data().join("ligand.db"), "somebody's shopping list, longer than a header\n")
        .unwrap();
    let ran = stack.run_server(&[]);
    refused(&ran, 1, &["sqlite:HOME/data/ligand.db", "file is not a database", "--database-url"]);
    let text = fs::read_to_string(stack.data().join("ligand.db")).unwrap();
    assert!(text.starts_with("somebody's shopping list"), "it was overwritten");
}

#[test]
fn a_second_server_on_one_sqlite_file() {
    let mut stack = stack(&[]);
    stack.restart();
    let record = fs::read(stack.record()).unwrap();
    let ran = stack.run_server(&[]);
    let holder = format!("in use by another server (process {})", stack.server_pid());
    refused(&ran, 1, &[&holder, "HOME/data/ligand.db", "--data-dir"]);
    assert_eq!(fs::read(stack.record()).unwrap(), record, "the first one is still found");
    stack.ok(&["ws", "list"]);
    // The lock is the kernel's: a crash does not leave one behind.
    stack.kill_server();
    stack.restart();
}

#[test]
fn settings_that_make_no_sense() {
    let check = |vars: &[(&str, &str)], flags: &[&str], words: &[&str]| {
        let stack = stack(vars);
        let ran = stack.run_server(flags);
        refused(&ran, 2, words);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
        assert!(!stack.data().exists(), "{flags:?}");
    };
    check(&[], &["--backend", "cloud"], &["backend (flag --backend)", "process"]);
    check(&[("LIGAND_BACKEND", "cloud")], &[], &["backend (environment LIGAND_BACKEND)"]);
    check(&[], &["--listen", "nowhere"], &["listen (flag --listen)", "PORT"]);
    let other = "mysql://me:hunter2@db";
    check(&[], &["--database-url", other], &["database_url (flag --database-url)"]);
    check(&[("DATABASE_URL", "sqlite:")], &[], &["database_url (environment DATABASE_URL)"]);
}

#[test]
fn an_address_in_the_environment_that_makes_no_sense() {
    let home = crate::run::Home::new();
    let data = home.path().join("data");
    let vars = [("LIGAND_LISTEN", "localhost"), ("LIGAND_DATA_DIR", data.to_str().unwrap())];
    for args in [&["up"][..], &["serve", "platform"], &["config", "show"]] {
        let ran = crate::run::run(&home, &vars, args);
        refused(&ran, 2, &["listen (environment LIGAND_LISTEN)"]);
    }
    assert!(!data.exists());
}

#[test]
fn a_settings_file_that_makes_no_sense() {
    let stack = stack(&[]);
    let path = stack.dir().join("ligand.toml");
    let table = [
        ("listem = \"127.0.0.1:0\"\n", "listem"),
        ("[backends.mine]\nkind = \"magic\"\n", "magic"),
        ("stop_grace_seconds = \"five\"\n", "stop_grace_seconds"),
        ("listen = \n", "1"),
    ];
    for (text, word) in table {
        fs::write(&path, text).unwrap();
        let ran = stack.run_server(&["--config", path.to_str().unwrap()]);
        refused(&ran, 2, &["the settings file HOME/ligand.toml is not understood", word]);
    }
    fs::remove_file(&path).unwrap();
    let ran = stack.run_server(&["--config", path.to_str().unwrap()]);
    refused(&ran, 2, &["cannot read the settings file HOME/ligand.toml", "No such file"]);
    assert!(!stack.data().exists());
}

#[test]
fn a_log_setting_that_makes_no_sense_is_a_warning() {
    let stack = Stack::prepare(&["up"], &[("LIGAND_LOG", "=loud=")]);
    let ran = stack.run_server(&["--once"]);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    assert!(ran.stderr.contains("warning: LIGAND_LOG is not understood"), "{}", ran.stderr);
}

#[test]
fn a_state_directory_that_cannot_be_written_is_a_warning() {
    let stack = Stack::prepare(&["up"], &[]);
    fs::write(stack.dir().join("state"), "in the way").unwrap();
    let ran = stack.run_server(&["--once"]);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    assert!(
        ran.stderr.contains("warning: client verbs will not find this server"),
        "{}",
        ran.stderr
    );
}

//! `ligand ws shell`, on processes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::stack::{Stack, until};

/// What the verb comes to, if this is what standard input says.
pub(crate) fn piped(stack: &Stack, workspace: &str, input: &str) -> Output {
    let mut verb = stack.follow(&["ws", "shell", workspace]);
    verb.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = verb.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_command_goes_through_a_shell() {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "a", "--wait"]);
    let output = piped(&stack, "a", "pwd; echo answer: $((6 * 7))\n");
    let (said, why) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{why}");
    assert!(said.contains("answer: 42"), "{said}{why}");
    let id = stack.id("a");
    assert!(said.contains(&format!("{id}/workspace")), "it is where the workspace is: {said}");
    // Without the end of its line, and into a program that takes the end of the input for its own.
    let output = piped(&stack, "a", "cat; echo after: $((2 * 21))");
    let said = text(&output.stdout);
    assert!(said.contains("after: 42"), "{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
    // More than any buffer on the way holds.
    let long = format!("{}\necho long: $((40 + 2))\n", ": 0123456789abcdef;\n".repeat(20_000));
    let output = piped(&stack, "a", &long);
    assert!(text(&output.stdout).contains("long: 42"), "{}", text(&output.stderr));
}

#[test]
fn a_shell_that_ends_by_itself_is_the_end_and_what_does_not_run_has_none() {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "a", "--wait"]);
    let mut verb = stack.follow(&["ws", "shell", "a"]);
    let mut child = verb.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // Held open: it is the shell that ends.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"exit\n").unwrap();
    let ended = until("the verb ends", || child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
    drop(stdin);
    stack.ok(&["ws", "pause", "a"]);
    let refused = stack.cli(&["ws", "shell", "a"]);
    assert_eq!(refused.code, 1, "{}", refused.transcript());
    assert!(refused.stderr.contains("container not running"), "{}", refused.stderr);
    stack.ok(&["ws", "create", "x", "--external"]);
    let refused = stack.cli(&["ws", "shell", "x"]);
    assert_eq!(refused.code, 1, "{}", refused.transcript());
}

/// A terminal, and the end of it that a program is given.
fn pair() -> (File, OwnedFd) {
    let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&outer).unwrap();
    unlockpt(&outer).unwrap();
    let name = ptsname(&outer, Vec::new()).unwrap();
    let inner = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (File::from(outer), inner)
}

fn resize(outer: &File, cols: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(outer, size).unwrap();
}

#[test]
fn on_a_terminal_it_is_as_large_as_that_and_leaves_it_as_it_was() {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "a", "--wait"]);
    let (mut outer, inner) = pair();
    resize(&outer, 123, 45);
    let lent = || Stdio::from(inner.try_clone().unwrap());
    let mut verb = stack.follow(&["ws", "shell", "a"]);
    let mut child = verb.stdin(lent()).stdout(lent()).stderr(lent()).spawn().unwrap();
    let heard = Arc::new(Mutex::new(String::new()));
    let (hearing, mut reader) = (Arc::clone(&heard), outer.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = reader.read(&mut piece) {
            hearing.lock().unwrap().push_str(&text(&piece[..read]));
        }
    });
    let has = |what: &str| {
        until(&format!("the terminal shows {what}"), || {
            heard.lock().unwrap().contains(what).then_some(())
        });
    };
    let cooked = || tcgetattr(&inner).unwrap().local_modes.contains(LocalModes::ICANON);
    until("it is raw", || (!cooked()).then_some(()));
    outer.write_all(b"stty size\r").unwrap();
    has("45 123");
    resize(&outer, 77, 33);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::WINCH).unwrap();
    // It tells the size beside what is typed.
    crate::stack::pause(Duration::from_millis(500));
    outer.write_all(b"stty size\r").unwrap();
    has("33 77");
    // Ctrl-C is for what runs there, not for the verb.
    outer.write_all(b"sleep 1000\r").unwrap();
    crate::stack::pause(Duration::from_millis(300));
    outer.write_all(b"\x03").unwrap();
    outer.write_all(b"echo still: $((6 * 7))\r").unwrap();
    has("still: 42");
    outer.write_all(b"exit\r").unwrap();
    let ended = until("the verb ends", || child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
    assert!(cooked(), "the terminal is as it was");
}

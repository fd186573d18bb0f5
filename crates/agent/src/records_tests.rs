//! Records on a disk that is well, damaged, full, or crowded.

use super::*;
use crate::testing::Scratch;

fn begun() -> Head {
    Head { version: 1, name: "m".to_owned(), digest: "d".to_owned(), started_ms: 1, ended: None }
}

fn ended(body: &'static [u8]) -> Arc<Record> {
    let ended = Ended {
        at_ms: 2,
        status: 200,
        kind: Some("text/plain".to_owned()),
        encoding: None,
        id: Value::from(7),
        cut: false,
        length: body.len() as u64,
    };
    let head = Head { ended: Some(ended), ..begun() };
    Arc::new(Record { head, body: Bytes::from_static(body) })
}

fn known(records: &Records, file: &str) -> Known {
    records.read(file).expect("readable").known("d").0
}

#[test]
fn a_record_says_begun_then_the_answer_whoever_reads_it() {
    let dir = Scratch::new();
    let records = Records::below(dir.path());
    assert_eq!(records.read("a").expect("readable"), Found::Nothing);
    records.begin("a", &begun()).expect("written");
    assert_eq!(known(&Records::below(dir.path()), "a"), Known::Begun);
    let record = ended(b"line\nline\n\xff");
    records.end("a", &record).expect("written");
    let found = Records::below(dir.path()).read("a").expect("readable");
    assert_eq!(found, Found::Record(record));
    assert_eq!(found.known("d"), (Known::Ended { failed: false }, true));
    assert!(!found.known("another").1);
    records.forget("a").expect("removed");
    records.forget("a").expect("it is gone already");
    assert_eq!(known(&records, "a"), Known::Nothing);
}

#[test]
fn what_cannot_be_understood_was_begun_and_what_cannot_be_read_is_said() {
    let dir = Scratch::new();
    let records = Records::below(dir.path());
    records.end("whole", &ended(b"answer")).expect("written");
    let path = |name: &str| dir.path().join(DIRECTORY).join(name);
    let whole = fs::read(path("whole")).expect("there");
    for (nth, bytes) in
        [&whole[..whole.len() - 1], &whole[..9], b"", b"{}\n", b"\n\n"].into_iter().enumerate()
    {
        let name = nth.to_string();
        fs::write(path(&name), bytes).expect("written");
        assert_eq!(known(&records, &name), Known::Damaged, "{nth}");
    }
    let newer = String::from_utf8_lossy(&whole).replace(r#""version":1"#, r#""version":2"#);
    fs::write(path("newer"), newer).expect("written");
    assert_eq!(known(&records, "newer"), Known::Damaged);
    // A directory in its place cannot be read, even by root.
    fs::create_dir(path("dir")).expect("made");
    assert!(records.read("dir").is_err() && records.begin("dir", &begun()).is_err());
}

#[test]
fn an_answer_that_cannot_be_written_is_given_and_written_later() {
    let dir = Scratch::new();
    let records = Records::below(dir.path());
    records.begin("a", &begun()).expect("written");
    let obstacle = dir.path().join(DIRECTORY).join("a.new");
    fs::create_dir(&obstacle).expect("made");
    let record = ended(b"answer");
    assert!(records.end("a", &record).is_err());
    assert_eq!(records.read("a").expect("known"), Found::Record(Arc::clone(&record)));
    assert_eq!(known(&Records::below(dir.path()), "a"), Known::Begun, "on disk it is not");
    records.catch_up();
    fs::remove_dir(&obstacle).expect("removed");
    records.catch_up();
    assert_eq!(Records::below(dir.path()).read("a").expect("known"), Found::Record(record));
}

#[test]
fn one_sync_serves_all_that_wait_and_none_that_come_later() {
    let (settled, syncs) = (Settled::default(), AtomicU64::new(0));
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let sync = || {
        syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            settled.settle(move || {
                gone.recv().expect("sent");
                Ok(())
            })
        });
        while settled.done.try_lock().is_ok() || settled.asked.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        // These write while the first sync runs: it is none of theirs.
        let others: Vec<_> = (0..8).map(|_| scope.spawn(|| settled.settle(sync))).collect();
        while settled.asked.load(Ordering::SeqCst) < 9 {
            std::thread::yield_now();
        }
        go.send(()).expect("heard");
        first.join().expect("no panic").expect("synced");
        others.into_iter().for_each(|other| other.join().expect("no panic").expect("synced"));
    });
    assert_eq!(syncs.load(Ordering::SeqCst), 1);
    let failed = settled.settle(|| Err(io::Error::other("full")));
    assert!(failed.is_err() && settled.settle(sync).is_ok());
    assert_eq!(syncs.load(Ordering::SeqCst), 2, "a failure settles nothing");
}

#[test]
fn old_ones_go_and_of_too_many_the_oldest() {
    let dir = Scratch::new();
    let records = Records { most: (10, 1 << 20), ..Records::below(dir.path()) };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    records.tidy(now).expect("an empty place is no error");
    let place = |name: &str, age: Duration| {
        records.begin(name, &begun()).expect("written");
        let path = dir.path().join(DIRECTORY).join(name);
        let file = OpenOptions::new().write(true).open(path).expect("there");
        file.set_modified(now - age).expect("dated");
    };
    for age in 0..14_u32 {
        place(&format!("aged{age:02}"), KEPT_FOR / 20 * age);
    }
    place("last-week", Duration::from_secs(7 * 24 * 3600));
    place("lost.new", STALE_DRAFT * 2);
    place("fresh.new", Duration::ZERO);
    assert!(records.crowded());
    records.tidy(now).expect("listed");
    let left = |name: &str| dir.path().join(DIRECTORY).join(name).exists();
    assert!(!left("last-week") && !left("lost.new") && left("fresh.new"));
    assert!(left("aged00") && left("aged08") && !left("aged09") && !left("aged13"));
    assert!(!records.crowded());

    records.end("large", &ended(&[b'x'; 900_000])).expect("written");
    records.end("larger", &ended(&[b'x'; 900_000])).expect("written");
    assert!(records.crowded());
    records.tidy(now).expect("listed");
    assert!(!records.crowded() && (left("large") != left("larger")));
}

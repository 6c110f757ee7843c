use std::sync::Mutex;

use super::*;
use crate::context::test_context;
use crate::kind::{Requeue, Turn};

/// One resource whose actor counts its turns. `panics` holds which of them panic.
#[derive(Default)]
struct Fake {
    /// Turns that each actor has taken, by actor.
    turns: Mutex<Vec<u32>>,
    reports: Mutex<Vec<&'static str>>,
    panics: bool,
}

#[derive(Default)]
struct Memory {
    turns: u32,
    work: Option<tokio_util::task::AbortOnDropHandle<()>>,
}

impl Kind for Fake {
    type State = Memory;
    type WorkResult = &'static str;
    const NAME: &'static str = "Fake";

    fn uid(&self, _: &Key) -> Option<String> {
        Some("u".to_owned())
    }

    fn keys(&self) -> Vec<Key> {
        vec![Key::new("ns", "one")]
    }

    async fn turn(&self, mut turn: Turn<'_, Self>) -> Requeue {
        turn.state.turns += 1;
        self.turns.lock().unwrap().push(turn.state.turns);
        if let Some(report) = turn.result.take() {
            self.reports.lock().unwrap().push(report);
        } else if self.panics {
            let work = async { panic!("work") };
            turn.state.work = Some(turn.work.work(work, "panicked"));
        }
        Requeue::default()
    }

    fn gone(&self, _: &Key, _: &str) {}

    async fn crashed(&self, _: Key, _: String, _: u32) {}
}

async fn start(kind: Fake) -> (Arc<Fake>, KindHandle) {
    let kind = Arc::new(kind);
    let supervisor = Supervisor {
        kind: kind.clone(),
        context: test_context(),
    };
    let (actor, _) = Actor::spawn(None, supervisor, ()).await.unwrap();
    (kind, KindHandle::new(actor))
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn actors_run_while_leading_only_and_each_term_begins_with_nothing_remembered() {
    let (kind, handle) = start(Fake::default()).await;
    handle.poke(Key::new("ns", "one"), Cause::Changed);
    handle.follow().await;
    assert!(kind.turns.lock().unwrap().is_empty(), "a follower takes no turns");
    handle.lead();
    until(|| kind.turns.lock().unwrap().len() == 1).await;
    handle.poke(Key::new("ns", "one"), Cause::Changed);
    until(|| *kind.turns.lock().unwrap() == [1, 2]).await;
    // Another replica leads for a while.
    handle.follow().await;
    handle.poke(Key::new("ns", "one"), Cause::Changed);
    handle.lead();
    until(|| kind.turns.lock().unwrap().len() == 3).await;
    assert_eq!(*kind.turns.lock().unwrap(), [1, 2, 1]);
}

#[tokio::test]
async fn a_panic_of_work_is_a_result() {
    let (kind, handle) = start(Fake {
        panics: true,
        ..Fake::default()
    })
    .await;
    handle.lead();
    until(|| *kind.reports.lock().unwrap() == ["panicked"]).await;
}

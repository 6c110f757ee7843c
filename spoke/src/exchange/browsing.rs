//! Questions of people about snapshots and files: one is answered at a time, and no faster than it is read.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::v1::spoke_message::Body;
use proto::v1::{AnswerPart, Browse, BrowsePart};
use tokio::sync::Notify;

/// Parts that may be on their way before anybody has read one.
const WINDOW: u32 = 8;
/// Questions that wait. More are refused.
const WAITING: usize = 4;

/// Questions and answers between the link and the part that answers.
#[derive(Default)]
pub struct Browsing {
    inner: Mutex<Inner>,
    asked: Notify,
    read: Notify,
    answered: Notify,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Browse>,
    /// Parts that may be sent of each question; a question that is not here is not wanted any more.
    room: HashMap<u64, u32>,
    parts: Vec<BrowsePart>,
}

impl Browsing {
    /// The hub asks.
    pub(crate) fn ask(&self, question: Browse) {
        let mut inner = self.lock();
        if inner.waiting.len() >= WAITING {
            drop(inner);
            self.end(
                question.id,
                "the cluster is answering other questions; ask again in a moment",
                false,
            );
            return;
        }
        inner.room.insert(question.id, WINDOW);
        inner.waiting.push_back(question);
        drop(inner);
        self.asked.notify_one();
    }

    /// So many more parts were read; 0: nobody reads.
    pub(crate) fn more(&self, id: u64, parts: u32) {
        let mut inner = self.lock();
        if parts == 0 {
            inner.room.remove(&id);
            inner.waiting.retain(|question| question.id != id);
        } else if let Some(room) = inner.room.get_mut(&id) {
            *room = room.saturating_add(parts).min(WINDOW);
        }
        drop(inner);
        self.read.notify_waiters();
    }

    /// A session has begun: nobody waits for answers of the one before.
    pub(crate) fn restart(&self) {
        *self.lock() = Inner::default();
        self.read.notify_waiters();
    }

    /// The next question.
    pub(crate) async fn next(&self) -> Browse {
        loop {
            let asked = self.asked.notified();
            if let Some(question) = self.lock().waiting.pop_front() {
                return question;
            }
            asked.await;
        }
    }

    /// Resolves when nobody reads the answer any more.
    pub(crate) async fn unwanted(&self, id: u64) {
        loop {
            let read = self.read.notified();
            if !self.lock().room.contains_key(&id) {
                return;
            }
            read.await;
        }
    }

    /// Sends a part when there is room for it. False: nobody reads any more.
    pub(crate) async fn part(&self, id: u64, part: AnswerPart) -> bool {
        loop {
            let read = self.read.notified();
            {
                let mut inner = self.lock();
                match inner.room.get_mut(&id) {
                    None => return false,
                    Some(0) => {}
                    Some(room) => {
                        *room -= 1;
                        inner.parts.push(BrowsePart {
                            id,
                            part: Some(part),
                            ..BrowsePart::default()
                        });
                        break;
                    }
                }
            }
            read.await;
        }
        self.answered.notify_one();
        true
    }

    /// Ends an answer, with an error unless it is empty.
    pub(crate) fn end(&self, id: u64, error: &str, refused: bool) {
        let mut inner = self.lock();
        inner.room.remove(&id);
        inner.parts.push(BrowsePart {
            id,
            part: None,
            last: true,
            error: error.to_owned(),
            refused,
        });
        drop(inner);
        self.answered.notify_one();
    }

    /// Resolves when the hub has to be told something.
    pub(crate) async fn answered(&self) {
        self.answered.notified().await;
    }

    /// What the hub has to be told.
    pub(crate) fn take(&self) -> Vec<Body> {
        let parts = std::mem::take(&mut self.lock().parts);
        parts.into_iter().map(Body::BrowsePart).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn question(id: u64) -> Browse {
        Browse {
            id,
            ..Browse::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_no_faster_than_it_is_read_and_ends_when_nobody_reads() {
        let browsing = Browsing::default();
        browsing.ask(question(1));
        assert_eq!(browsing.next().await.id, 1);
        for _ in 0..WINDOW {
            assert!(browsing.part(1, AnswerPart::default()).await);
        }
        assert_eq!(browsing.take().len(), WINDOW as usize);
        let full = timeout(Duration::from_secs(1), browsing.part(1, AnswerPart::default())).await;
        assert!(full.is_err());
        let (sent, ()) = tokio::join!(browsing.part(1, AnswerPart::default()), async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            browsing.more(1, 1);
        });
        assert!(sent);
        let (sent, (), ()) = tokio::join!(
            browsing.part(1, AnswerPart::default()),
            browsing.unwanted(1),
            async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                browsing.more(1, 0);
            }
        );
        assert!(!sent);
    }

    #[tokio::test(start_paused = true)]
    async fn more_questions_than_wait_are_refused_and_a_new_session_asks_anew() {
        let browsing = Browsing::default();
        for id in 0..=WAITING as u64 {
            browsing.ask(question(id));
        }
        let refused = browsing.take();
        let [Body::BrowsePart(refused)] = refused.as_slice() else {
            panic!("{refused:?}")
        };
        assert!(refused.last && refused.id == WAITING as u64 && !refused.error.is_empty());
        browsing.restart();
        assert!(timeout(Duration::from_secs(1), browsing.next()).await.is_err());
        assert!(!browsing.part(0, AnswerPart::default()).await);
    }
}

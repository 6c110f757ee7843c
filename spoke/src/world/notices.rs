//! The last warning of Kubernetes about each of our CronJobs, Jobs and pods: why a pod is not created or not started stands
//! in Events alone. Bounded: the oldest entry goes when there are too many.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;

/// Objects with a warning that are kept.
const MAX: usize = 1024;
/// Bytes of a message that are kept.
const MESSAGE_MAX: usize = 1024;

/// A warning: reason and message of an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub reason: Box<str>,
    pub message: Box<str>,
    /// When it was last given.
    pub at: Timestamp,
}

impl Notice {
    /// A notice; a long message is cut.
    #[must_use]
    pub fn new(reason: &str, message: &str, at: Timestamp) -> Notice {
        let mut end = message.len().min(MESSAGE_MAX);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        Notice {
            reason: reason.into(),
            message: message.get(..end).unwrap_or_default().trim().into(),
            at,
        }
    }
}

/// The newest notice by uid of the object that it is about.
#[derive(Default)]
pub struct Notices {
    inner: RwLock<HashMap<Box<str>, Arc<Notice>>>,
}

impl Notices {
    /// Keeps a notice unless a newer one is known. Returns whether reason or message are new.
    pub fn put(&self, uid: &str, notice: Notice) -> bool {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let known = inner.get(uid);
        if known.is_some_and(|known| known.at > notice.at) {
            return false;
        }
        let news = known.is_none_or(|k| (&k.reason, &k.message) != (&notice.reason, &notice.message));
        if known.is_none() && inner.len() >= MAX {
            let oldest = inner.iter().min_by_key(|(_, n)| n.at).map(|(uid, _)| uid.clone());
            oldest.and_then(|uid| inner.remove(&uid));
        }
        inner.insert(uid.into(), Arc::new(notice));
        news
    }

    /// The newest notice about an object.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<Arc<Notice>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.get(uid).cloned()
    }

    /// The object was deleted.
    pub fn forget(&self, uid: &str) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(text: &str, at: i64) -> Notice {
        Notice::new("FailedCreate", text, Timestamp::from_second(at).unwrap())
    }

    #[test]
    fn the_newest_is_kept_and_a_repetition_is_no_news() {
        let notices = Notices::default();
        assert!(notices.put("u", notice("quota", 10)));
        assert!(!notices.put("u", notice("quota", 20)), "again");
        assert!(!notices.put("u", notice("older", 5)));
        assert!(notices.put("u", notice("limits", 30)));
        assert_eq!(&*notices.get("u").unwrap().message, "limits");
        notices.forget("u");
        assert!(notices.get("u").is_none());
    }

    #[test]
    fn memory_is_bounded_in_count_and_size() {
        let notices = Notices::default();
        for n in 0..=MAX {
            notices.put(&n.to_string(), notice("text", i64::try_from(n).unwrap()));
        }
        assert!(notices.get("0").is_none(), "the oldest went");
        assert!(notices.get("1").is_some() && notices.get(&MAX.to_string()).is_some());
        assert!(notice(&"ü".repeat(MESSAGE_MAX), 1).message.len() <= MESSAGE_MAX);
    }
}

//! Questions about the store of a repository.

use std::collections::BTreeMap;

use super::*;
use crate::secrets::Backend;
use crate::testing::ApiServer;
use crate::testing::restic::{MemoryRestic, REPOSITORY_ID};
use crate::testing::spoke::{SHOP, Spoke, furnish};

fn asked(probe: u64) -> StoreProbe {
    StoreProbe {
        probe,
        restic_id: REPOSITORY_ID.to_owned(),
        ..StoreProbe::default()
    }
}

fn hold(probe: u64) -> StoreProbe {
    StoreProbe {
        hold_ms: 60_000,
        ..asked(probe)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_held_until_it_is_given_up_and_another_one_is_looked_for_meanwhile() {
    let (api, memory) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    let arguments = ["--leader-elect", "false", "--hub", "https://127.0.0.1:1"];
    let spoke = Spoke::start_as("", &api, &memory, &arguments).await;
    let at = Key::new(SHOP, "nas");
    api.until("the repository", |_| {
        let known = spoke.context.world.repositories.get(&at)?;
        known.status.as_ref()?.repository_id.as_ref().map(drop)
    })
    .await;
    let restic: Arc<dyn Restic> = memory.clone();
    let parts = (&spoke.context, &restic);
    let mut held = Held::default();
    let first = answer(parts, &mut held, hold(7)).await.unwrap();
    assert_eq!((first.probe, first.listed, first.error.as_str()), (7, true, ""));
    assert_eq!(memory.held(), std::slice::from_ref(&first.lock));
    for (lock, listed) in [(first.lock.clone(), true), ("b".repeat(64), false)] {
        let look = StoreProbe { lock, ..asked(7) };
        let found = answer(parts, &mut held, look).await.unwrap();
        assert_eq!((found.listed, found.error.as_str()), (listed, ""));
    }
    assert_eq!(answer(parts, &mut held, asked(7)).await, None);
    while !memory.held().is_empty() {
        tokio::task::yield_now().await;
    }

    // A hub that forgets it, and one that asks for too many.
    for probe in 10..14 {
        assert!(answer(parts, &mut held, hold(probe)).await.unwrap().listed);
    }
    let many = answer(parts, &mut held, hold(14)).await.unwrap();
    assert!(many.error.contains("other probes"), "{many:?}");
    tokio::time::sleep(Duration::from_secs(61)).await;
    while !memory.held().is_empty() {
        tokio::task::yield_now().await;
    }
    memory.fail(Some(crate::restic::Failure::WrongPassword));
    for question in [
        hold(20),
        StoreProbe {
            lock: "b".repeat(64),
            ..asked(20)
        },
    ] {
        let failed = answer(parts, &mut held, question).await.unwrap();
        assert!(failed.error.contains("shop/nas") && !failed.listed, "{failed:?}");
    }
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn resources_that_lead_to_different_stores_show_no_store() {
    let memory = MemoryRestic::default();
    let url = "rest:http://nas.lan:8000/shop";
    let credentials = Credentials {
        backend: Backend::of(url).unwrap(),
        url: url.to_owned(),
        password: "right horse".to_owned(),
        variables: BTreeMap::new(),
        files: BTreeMap::new(),
        options: Vec::new(),
        file_variables: BTreeMap::new(),
    };
    let others = || vec![(Key::new(SHOP, "other"), credentials.clone())];
    let lock = "b".repeat(64);
    // No other resource, no question.
    assert_eq!(agree(&memory, Vec::new(), &lock).await, Ok(()));
    assert_eq!(agree(&memory, others(), &lock).await, Err(APART.to_owned()));
    assert_eq!(memory.questions().len(), 3, "a storage may show it later");
    let (held, shows) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let hold = Restic::hold(&memory, &credentials, held, ended);
    let look = async {
        let lock = shows.await.unwrap();
        assert_eq!(agree(&memory, others(), &lock).await, Ok(()));
        end.send(()).unwrap();
    };
    assert_eq!(tokio::join!(hold, look).0, Ok(()));
    memory.fail(Some(crate::restic::Failure::WrongPassword));
    let failed = agree(&memory, others(), &lock).await.unwrap_err();
    assert!(failed.starts_with("shop/other: "), "{failed}");
}

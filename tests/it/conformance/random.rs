//! Operations in any order: whatever is done, the counts equal the rows, and no job is in two hands.

use std::time::Duration;

use futures::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rowgate::{
    export::{Caps, ExportId, State},
    queue::{
        Abandoned, ClaimRequest, Error, Inserted, Job, JobKind, NewJob, Paused, Settled,
        Settlement, Work,
    },
};

use super::rig::*;

const TENANTS: [&str; 3] = ["a", "b", "c"];
const SOURCES: [&str; 2] = ["s", "r"];

fn caps() -> Caps {
    Caps {
        source_slots: source_cap("*", 4).source_slots,
        ..tenant_cap("*", 3)
    }
}

/// What one client of the queue holds: jobs that it claimed or started, and ids that it has seen.
struct Client<'r> {
    rig: &'r Rig,
    random: StdRng,
    held: Vec<Job>,
    seen: Vec<ExportId>,
}

impl Client<'_> {
    async fn step(&mut self) -> Result<(), Error> {
        let store = &self.rig.store;
        let tenant = *TENANTS.choose(&mut self.random).expect("some");
        let source = *SOURCES.choose(&mut self.random).expect("some");
        match self.random.random_range(0..13) {
            0..=2 => {
                let job = store.insert(new_job(tenant, source)).await?;
                self.inserted(job);
            }
            3 => {
                let kind = *[JobKind::Export, JobKind::Live]
                    .choose(&mut self.random)
                    .expect("some");
                let job = NewJob {
                    kind,
                    ..inline(tenant, source, caps())
                };
                let job = store.insert(job).await?;
                self.inserted(job);
            }
            4..=5 => {
                let ttl = *[NO_TIME, HOUR].choose(&mut self.random).expect("some");
                let request = ClaimRequest {
                    lease_ttl: ttl,
                    caps: caps(),
                    ..claim_request(self.random.random_range(0..4))
                };
                self.held.extend(store.claim(&request).await?);
            }
            6..=8 => self.settle().await?,
            9 => {
                if let Some(id) = self.seen.choose(&mut self.random) {
                    store.cancel(*id).await?;
                }
            }
            10 => {
                let overdue = store.overdue(None, 5).await?;
                store.reap(&Abandoned::Silent(overdue), 2, 5).await?;
            }
            11 => {
                if let Some(id) = self.seen.choose(&mut self.random) {
                    store.delete(*id).await?;
                }
                store.purge(Duration::from_millis(5), 2).await?;
            }
            _ => {
                let id = rowgate::export::TenantId(tenant.to_owned());
                let paused = *[Paused::Yes, Paused::No, Paused::No]
                    .choose(&mut self.random)
                    .expect("some");
                store.set_paused(Some(&id), paused).await?;
                let owned: Vec<_> = self.held.iter().map(|job| (job.id, job.fence)).collect();
                store.renew(&owned, NO_TIME).await?;
            }
        }
        Ok(())
    }

    fn inserted(&mut self, inserted: Inserted) {
        if let Inserted::Created(job) = inserted {
            self.seen.push(job.id);
            if job.state == State::Running {
                self.held.push(job);
            }
        }
    }

    async fn settle(&mut self) -> Result<(), Error> {
        if self.held.is_empty() {
            return Ok(());
        }
        let job = self
            .held
            .swap_remove(self.random.random_range(0..self.held.len()));
        let settlement = match self.random.random_range(0..5) {
            0 => succeeded(),
            1 => Settlement::Failed(failure("X")),
            2 => retry(NO_TIME),
            3 => retry(Duration::from_millis(3)),
            _ => Settlement::HandBack,
        };
        let work = Work {
            rows_read: self.random.random_range(0..20_000),
            bytes: self.random.random_range(0..1_000_000),
        };
        match self
            .rig
            .store
            .settle(job.id, job.fence, &settlement, work)
            .await?
        {
            Settled::Done(now) => assert_eq!(now.fence, job.fence),
            // Swept from us, or deleted after that.
            Settled::NotOwner(Some(now)) => {
                assert!(
                    now.fence > job.fence
                        || !matches!(now.state, State::Running | State::Cancelling)
                );
            }
            Settled::NotOwner(None) => {}
        }
        Ok(())
    }
}

fn client(rig: &Rig, seed: u64) -> Client<'_> {
    Client {
        rig,
        random: StdRng::seed_from_u64(seed),
        held: Vec::new(),
        seen: Vec::new(),
    }
}

/// The same in every run, unless the environment gives another: `.cargo/config.toml` has it.
fn seed() -> u64 {
    let given = std::env::var("PROPTEST_RNG_SEED").unwrap_or_else(|_| "1".to_owned());
    given.parse().expect("PROPTEST_RNG_SEED is a number")
}

pub async fn any_order_of_operations_keeps_the_counts_true(rig: &Rig) {
    let seed = seed();
    println!("seed {seed}");
    let mut client = client(rig, seed);
    for step in 0..250 {
        client
            .step()
            .await
            .unwrap_or_else(|e| panic!("step {step}: {e}"));
        rig.assert_consistent().await;
    }
}

pub async fn concurrent_operations_keep_the_counts_true(rig: &Rig) {
    let seed = seed();
    println!("seed {seed}");
    let clients = (0..6).map(|i| async move {
        let mut client = client(rig, seed.wrapping_add(i));
        for step in 0..80 {
            match client.step().await {
                Ok(()) | Err(Error::Contended(_)) => {}
                Err(e) => panic!("step {step}: {e}"),
            }
        }
    });
    join_all(clients).await;
    rig.assert_consistent().await;
}

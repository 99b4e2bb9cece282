//! A job store that fails on command: calls that are refused, that hang or panic, or whose reply is lost after the commit.
//! Calls are named as the methods of `JobStore` and `ControlStore`.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use rowgate::{
    app::Stores,
    export::{ExportId, Fence, LimitOverrides, SpecHash, TenantId},
    queue::{
        Abandoned, Audit, Cancelled, ClaimRequest, ControlStore, Deleted, Error, Guard, Inserted,
        Job, JobStore, LimitChange, ListFilter, NewJob, Ownership, Paused, PausedTenants, Reaped,
        Result, Settled, Settlement, Standing, Work, WorkerRow,
    },
};
use tokio::sync::watch;
use uuid::Uuid;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Unavailable at once; nothing reaches the store.
    Refuse,
    /// Carried out, and the caller is told that the connection broke. The next call only.
    LoseReply,
    /// Waits, before anything is carried out, until the faults are cleared.
    Hang,
    /// Carried out, and answered when the faults are cleared.
    HangReply,
    /// A defect of whoever calls.
    Panic,
}

/// What fails from now on; shared with the stores that [`Faults::over`] made.
pub struct Faults {
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    everything: Option<Fault>,
    by_call: HashMap<&'static str, Fault>,
    calls: HashMap<&'static str, usize>,
    hanging: HashMap<&'static str, usize>,
}

impl State {
    fn fault(&self, call: &str) -> Option<Fault> {
        self.by_call.get(call).copied().or(self.everything)
    }
}

struct Faulty<S: ?Sized> {
    faults: Arc<Faults>,
    inner: Arc<S>,
}

impl Faults {
    /// The same stores, to fail as the value says.
    pub fn over(stores: Stores) -> (Stores, Arc<Self>) {
        let (state, _) = watch::channel(State::default());
        let faults = Arc::new(Self { state });
        let jobs = Faulty {
            faults: faults.clone(),
            inner: stores.jobs,
        };
        let control = Faulty {
            faults: faults.clone(),
            inner: stores.control,
        };
        let stores = Stores {
            jobs: Arc::new(jobs),
            control: Arc::new(control),
            guard: stores.guard,
        };
        (stores, faults)
    }

    pub fn set(&self, call: &'static str, fault: Fault) {
        self.state.send_modify(|state| {
            state.by_call.insert(call, fault);
        });
    }

    pub fn set_all(&self, fault: Fault) {
        self.state
            .send_modify(|state| state.everything = Some(fault));
    }

    /// Nothing fails any more, and what hung goes on.
    pub fn clear(&self) {
        self.state.send_modify(|state| {
            state.everything = None;
            state.by_call.clear();
        });
    }

    /// How often it was called, failures included.
    pub fn calls(&self, call: &str) -> usize {
        self.state.borrow().calls.get(call).copied().unwrap_or(0)
    }

    pub async fn until_hanging(&self, call: &str) {
        let mut state = self.state.subscribe();
        let hangs = state.wait_for(|state| state.hanging.get(call).is_some_and(|n| *n > 0));
        hangs.await.expect("the sender is here");
    }

    async fn through<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut fault = None;
        self.state.send_modify(|state| {
            *state.calls.entry(call).or_default() += 1;
            fault = state.fault(call);
            if fault == Some(Fault::LoseReply) {
                state.by_call.remove(call);
            }
        });
        match fault {
            None => answer.await,
            Some(Fault::Panic) => panic!("told to by the test"),
            Some(Fault::Refuse) => Err(Error::Unavailable("refused by the test".to_owned())),
            Some(Fault::LoseReply) => {
                answer.await?;
                Err(Error::Unavailable(
                    "its reply was lost by the test".to_owned(),
                ))
            }
            Some(Fault::Hang) => {
                self.hang(call).await;
                answer.await
            }
            Some(Fault::HangReply) => {
                let answer = answer.await;
                self.hang(call).await;
                answer
            }
        }
    }

    async fn hang(&self, call: &'static str) {
        let mut state = self.state.subscribe();
        self.state
            .send_modify(|state| *state.hanging.entry(call).or_default() += 1);
        let over = state.wait_for(|state| state.fault(call).is_none());
        over.await.expect("the sender is here");
    }
}

impl<S: ?Sized> Faulty<S> {
    async fn through<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.faults.through(call, answer).await
    }
}

#[async_trait]
impl JobStore for Faulty<dyn JobStore> {
    async fn insert(&self, job: NewJob) -> Result<Inserted> {
        self.through("insert", self.inner.insert(job)).await
    }

    async fn get(&self, id: ExportId) -> Result<Option<Job>> {
        self.through("get", self.inner.get(id)).await
    }

    async fn submitted(
        &self,
        tenant: &TenantId,
        request_id: Uuid,
    ) -> Result<Option<(Job, SpecHash)>> {
        let answer = self.inner.submitted(tenant, request_id);
        self.through("submitted", answer).await
    }

    async fn standings(&self, ids: &[ExportId]) -> Result<HashMap<ExportId, Standing>> {
        self.through("standings", self.inner.standings(ids)).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Job>> {
        self.through("list", self.inner.list(filter)).await
    }

    async fn queue_position(&self, id: ExportId) -> Result<Option<u64>> {
        self.through("queue_position", self.inner.queue_position(id))
            .await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Job>> {
        self.through("claim", self.inner.claim(request)).await
    }

    async fn renew(
        &self,
        owned: &[(ExportId, Fence)],
        lease_ttl: Duration,
    ) -> Result<Vec<Ownership>> {
        self.through("renew", self.inner.renew(owned, lease_ttl))
            .await
    }

    async fn settle(
        &self,
        id: ExportId,
        fence: Fence,
        settlement: &Settlement,
        work: Work,
    ) -> Result<Settled> {
        let answer = self.inner.settle(id, fence, settlement, work);
        self.through("settle", answer).await
    }

    async fn cancel(&self, id: ExportId) -> Result<Cancelled> {
        self.through("cancel", self.inner.cancel(id)).await
    }

    async fn delete(&self, id: ExportId) -> Result<Deleted> {
        self.through("delete", self.inner.delete(id)).await
    }

    async fn overdue(
        &self,
        after: Option<ExportId>,
        jobs_max: u32,
    ) -> Result<Vec<(ExportId, Fence)>> {
        self.through("overdue", self.inner.overdue(after, jobs_max))
            .await
    }

    async fn reap(
        &self,
        abandoned: &Abandoned,
        attempts_max: u32,
        jobs_max: u32,
    ) -> Result<Vec<Reaped>> {
        let answer = self.inner.reap(abandoned, attempts_max, jobs_max);
        self.through("reap", answer).await
    }

    async fn expire(&self, grace: Duration, jobs_max: u32) -> Result<Vec<Job>> {
        self.through("expire", self.inner.expire(grace, jobs_max))
            .await
    }

    async fn purge(&self, retention: Duration, jobs_max: u32) -> Result<Vec<Job>> {
        self.through("purge", self.inner.purge(retention, jobs_max))
            .await
    }
}

#[async_trait]
impl ControlStore for Faulty<dyn ControlStore> {
    async fn limits(&self) -> Result<LimitOverrides> {
        self.through("limits", self.inner.limits()).await
    }

    async fn update_limits(&self, change: &LimitChange) -> Result<LimitOverrides> {
        self.through("update_limits", self.inner.update_limits(change))
            .await
    }

    async fn set_paused(&self, tenant: Option<&TenantId>, paused: Paused) -> Result<()> {
        self.through("set_paused", self.inner.set_paused(tenant, paused))
            .await
    }

    async fn paused(&self) -> Result<PausedTenants> {
        self.through("paused", self.inner.paused()).await
    }

    async fn token_key(&self) -> Result<[u8; 32]> {
        self.through("token_key", self.inner.token_key()).await
    }

    async fn lead(&self) -> Result<Option<Guard>> {
        self.inner.lead().await
    }

    async fn heartbeat(&self, worker: &WorkerRow, ttl: Duration) -> Result<()> {
        self.through("heartbeat", self.inner.heartbeat(worker, ttl))
            .await
    }

    async fn workers(&self) -> Result<Vec<WorkerRow>> {
        self.through("workers", self.inner.workers()).await
    }

    async fn wait_for_work(&self, timeout: Duration) {
        self.inner.wait_for_work(timeout).await;
    }

    async fn announce_work(&self) {
        self.inner.announce_work().await;
    }

    async fn audit(&self) -> Result<Audit> {
        self.inner.audit().await
    }
}

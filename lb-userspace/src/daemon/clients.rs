//! Places for clients, and who gives way when all are taken.
//!
//! A client that the daemon waits for (for a request's head or body, or to read on) is known to be waited for since when. When every place
//! is taken and another client comes, the one that was waited for longest is cut off: idle, slow and half-open clients, however
//! many, keep nobody out. Who is being worked for never gives way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Until it is looked again for somebody to cut off.
const RETRY: Duration = Duration::from_millis(50);

/// When it may be cut off, and which client it is.
type Key = (Instant, u64);

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    all: u32,
    waited_for: Mutex<BTreeMap<Key, Arc<Notify>>>,
    next: AtomicU64,
}

impl Places {
    pub(super) fn new(all: u32) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(all as usize));
        Arc::new(Self { free, all, waited_for: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// A place, somebody else's if need be. Gives up only if the places are closed, which they never are.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Place> {
        let permit = loop {
            if let Ok(permit) = self.free.clone().try_acquire_owned() {
                break permit;
            }
            self.cut_off();
            tokio::select! {
                permit = self.free.clone().acquire_owned() => break permit.ok()?,
                () = tokio::time::sleep(RETRY) => {}
            }
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Some(Place { places: self.clone(), id, out: Arc::new(Notify::new()), since: Mutex::new(None), _permit: permit })
    }

    /// Waits until nobody has a place.
    pub(super) async fn all_free(&self) {
        let _ = self.free.acquire_many(self.all).await;
    }

    fn cut_off(&self) {
        let mut waited_for = self.waited_for.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(first) = waited_for.first_entry().filter(|e| e.key().0 <= now) {
            first.remove().notify_one();
        }
    }
}

/// A client's place, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    out: Arc<Notify>,
    since: Mutex<Option<Instant>>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// The client is waited for from now on; within `grace` it is not cut off.
    pub(super) fn wait(&self, grace: Duration) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_none() {
            let at = Instant::now() + grace;
            *since = Some(at);
            self.map(|m| m.insert((at, self.id), self.out.clone()));
        }
    }

    /// The client is not waited for any more.
    pub(super) fn work(&self) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = since.take() {
            self.map(|m| m.remove(&(at, self.id)));
        }
    }

    /// Waits until the client is cut off.
    pub(super) async fn cut_off(&self) {
        self.out.notified().await;
    }

    fn map<T>(&self, f: impl FnOnce(&mut BTreeMap<Key, Arc<Notify>>) -> T) -> T {
        f(&mut self.places.waited_for.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.work();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_cut_off(place: &Place) -> bool {
        tokio::time::timeout(Duration::ZERO, place.cut_off()).await.is_ok()
    }

    #[tokio::test]
    async fn who_was_waited_for_longest_gives_way() {
        let places = Places::new(3);
        let [a, b, c] = [places.take().await.unwrap(), places.take().await.unwrap(), places.take().await.unwrap()];
        b.wait(Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(2)).await;
        a.wait(Duration::ZERO);
        c.wait(Duration::from_secs(600));
        let next = tokio::spawn(async move { places.take().await.unwrap() });
        b.cut_off().await;
        drop(b);
        let next = next.await.unwrap();
        assert!(!is_cut_off(&a).await && !is_cut_off(&c).await && !is_cut_off(&next).await);
    }

    #[tokio::test]
    async fn who_is_worked_for_or_within_its_grace_does_not() {
        let places = Places::new(2);
        let [a, b] = [places.take().await.unwrap(), places.take().await.unwrap()];
        a.wait(Duration::ZERO);
        a.work();
        b.wait(Duration::from_millis(200));
        let start = Instant::now();
        let next = tokio::spawn({
            let places = places.clone();
            async move { places.take().await.unwrap() }
        });
        b.cut_off().await;
        assert!(start.elapsed() >= Duration::from_millis(200));
        assert!(!is_cut_off(&a).await);
        drop(b);
        drop(next.await.unwrap());
        drop(a);
        places.all_free().await;
        assert!(places.waited_for.lock().unwrap().is_empty());
    }
}

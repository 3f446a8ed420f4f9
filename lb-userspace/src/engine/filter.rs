//! The service filter: which bits are set, and by how many services.
//!
//! Two services may share a bit, so each is counted; a bit is cleared with the last. Only this process writes the words.

use super::mapped::Mapped;
use lb_common::filter::bit;
use lb_common::service::ServiceKey;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// Counts behind the bits.
#[derive(Debug)]
pub(super) struct Filter {
    words: Mapped<u64>,
    services: HashMap<u32, u32>,
}

impl Filter {
    /// A filter that lets exactly these services' packets through. What was set for them before stays set all the time.
    pub(super) fn adopt<'a>(words: Mapped<u64>, keys: impl Iterator<Item = &'a ServiceKey>) -> Self {
        let mut filter = Self { words, services: HashMap::new() };
        for key in keys {
            filter.add(key);
        }
        for i in 0..filter.words.len() {
            let mask = (0..64).filter(|b| filter.services.contains_key(&(i * 64 + b))).fold(0, |mask, b| mask | 1 << b);
            filter.words.u64(i, 0).store(mask, Ordering::Release);
        }
        filter
    }

    pub(super) fn add(&mut self, key: &ServiceKey) {
        let bit = bit(key.addr, key.port, key.proto);
        let n = self.services.entry(bit).or_default();
        *n += 1;
        if *n == 1 {
            self.words.u64(bit / 64, 0).fetch_or(1 << (bit % 64), Ordering::AcqRel);
        }
    }

    /// A word, as packets see it.
    #[cfg(test)]
    pub(super) fn word(&self, index: u32) -> u64 {
        self.words.u64(index, 0).load(Ordering::Relaxed)
    }

    pub(super) fn remove(&mut self, key: &ServiceKey) {
        let bit = bit(key.addr, key.port, key.proto);
        let Some(n) = self.services.get_mut(&bit) else { return };
        *n -= 1;
        if *n == 0 {
            self.services.remove(&bit);
            self.words.u64(bit / 64, 0).fetch_and(!(1 << (bit % 64)), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::filter::FILTER_WORDS;

    fn key(port: u16) -> ServiceKey {
        ServiceKey { addr: [7, 0], port, proto: 6, family: 4, zero: 0 }
    }

    #[test]
    fn a_shared_bit_stays_until_the_last_service_goes() {
        let words = Mapped::heap(FILTER_WORDS);
        let mut f = Filter::adopt(words.clone(), [].iter());
        let set = || (0..words.len()).map(|i| words.u64(i, 0).load(Ordering::Relaxed).count_ones()).sum::<u32>();
        f.add(&key(1));
        f.add(&key(1));
        f.add(&key(2));
        assert_eq!(set(), 2);
        f.remove(&key(1));
        assert_eq!(set(), 2);
        f.remove(&key(1));
        assert_eq!(set(), 1);
        let mut f = Filter::adopt(words.clone(), [key(2), key(3)].iter());
        assert_eq!(set(), 2);
        f.remove(&key(3));
        f.remove(&key(2));
        f.remove(&key(2));
        assert_eq!(set(), 0);
    }
}

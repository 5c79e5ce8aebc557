//! Connections of the whole process, counted over all shards: which may be
//! opened, and when the next one.
//!
//! Every shard accepts for itself, so the counts are shared: one lock, taken once when a connection
//! begins and once when it ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bounds of [`Admission`].
#[derive(Clone, Debug, Default)]
pub struct AdmissionLimits {
    /// Connections open at a time.
    pub total: u32,
    /// Of `total`, those that only clients on this machine (loopback addresses) get.
    pub local_reserve: u32,
    /// Connections from one address, and exceptions for some.
    pub per_ip: u32,
    pub per_ip_overrides: HashMap<IpAddr, u32>,
    /// Connections accepted per second; `u32::MAX`: no limit.
    pub per_second: u32,
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no place for anybody.
    Full,
    /// The places left are for clients on this machine.
    Reserved,
    /// Its address has as many connections as it may, which is this number.
    Address(u32),
}

/// Shared by all shards.
pub struct Admission {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    limits: AdmissionLimits,
    open: u32,
    by_ip: HashMap<IpAddr, u32>,
    pace: Pace,
}

/// An open connection's place; given back on drop.
pub struct Place {
    admission: Arc<Admission>,
    ip: IpAddr,
}

impl Admission {
    pub fn new(limits: AdmissionLimits) -> Arc<Admission> {
        let admission = Admission { counts: Mutex::default() };
        admission.set_limits(limits);
        Arc::new(admission)
    }

    /// Those of connections to come; no open one is ended.
    pub fn set_limits(&self, limits: AdmissionLimits) {
        // Where there are few places, most are still for everybody.
        let local_reserve = limits.local_reserve.min(limits.total / 4);
        self.counts().limits = AdmissionLimits { local_reserve, ..limits };
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that may be open at a time.
    pub fn total(&self) -> u32 {
        self.counts().limits.total
    }

    /// True while there is no place for anybody.
    pub fn is_full(&self) -> bool {
        let counts = self.counts();
        counts.open >= counts.limits.total
    }

    /// Time until the next connection may be accepted.
    pub fn pause(&self, now: Instant) -> Duration {
        self.counts().pace.pause(now)
    }

    /// Gives a connection that was accepted at `now` a place if there is one for its address; one
    /// for which there is a place at all counts against the rate.
    pub fn admit(self: &Arc<Self>, ip: IpAddr, now: Instant) -> Result<Place, Refused> {
        let ip = ip.to_canonical();
        let counts = &mut *self.counts();
        let places = counts.limits.total - if ip.is_loopback() { 0 } else { counts.limits.local_reserve };
        if counts.open >= places {
            return Err(if counts.open >= counts.limits.total { Refused::Full } else { Refused::Reserved });
        }
        counts.pace.take(now, counts.limits.per_second);
        let limit = counts.limits.per_ip_overrides.get(&ip).copied().unwrap_or(counts.limits.per_ip);
        let of_ip = counts.by_ip.get(&ip).copied().unwrap_or(0);
        if of_ip >= limit {
            return Err(Refused::Address(limit));
        }
        counts.by_ip.insert(ip, of_ip + 1);
        counts.open += 1;
        Ok(Place { admission: self.clone(), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = &mut *self.admission.counts();
        counts.open = counts.open.saturating_sub(1);
        match counts.by_ip.get_mut(&self.ip) {
            Some(of_ip) if *of_ip > 1 => *of_ip -= 1,
            _ => {
                counts.by_ip.remove(&self.ip);
            }
        }
    }
}

/// A rate, with a second's worth at once after a quiet time.
#[derive(Default)]
struct Pace {
    /// When all that was taken has been paid for.
    paid: Option<Instant>,
}

const BURST: Duration = Duration::from_secs(1);

impl Pace {
    fn take(&mut self, now: Instant, per_second: u32) {
        if per_second == u32::MAX {
            return;
        }
        let paid = self.paid.map_or(now, |paid| paid.max(now));
        self.paid = Some(paid + BURST / per_second.max(1));
    }

    fn pause(&self, now: Instant) -> Duration {
        let ahead = self.paid.map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now));
        // The last connection counts only once the next would exceed a second's worth.
        (ahead + Duration::from_nanos(1)).saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> AdmissionLimits {
        AdmissionLimits { total: 8, local_reserve: 2, per_ip: 5, per_second: u32::MAX, ..AdmissionLimits::default() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn limits_change_for_connections_to_come() {
        let admission = Admission::new(AdmissionLimits { per_ip: 2, ..limits() });
        let (ip, now) = ("10.0.0.1".parse().unwrap(), Instant::now());
        let held = [admission.admit(ip, now), admission.admit(ip, now)];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(admission.admit(ip, now).err(), Some(Refused::Address(2)));
        admission.set_limits(AdmissionLimits { per_ip: 3, ..limits() });
        let third = admission.admit(ip, now);
        assert!(third.is_ok());
        admission.set_limits(AdmissionLimits { per_ip: 1, ..limits() });
        assert_eq!(admission.admit(ip, now).err(), Some(Refused::Address(1)));
    }

    #[test]
    fn an_address_has_its_limit_and_exceptions_theirs() {
        let overrides = HashMap::from([(ip("10.0.0.2"), 1), (ip("10.0.0.3"), 0)]);
        let admission = Admission::new(AdmissionLimits { per_ip_overrides: overrides, ..limits() });
        let now = Instant::now();
        let mut places: Vec<Place> = (0..5).map(|_| admission.admit(ip("10.0.0.1"), now).ok().unwrap()).collect();
        assert_eq!(admission.admit(ip("10.0.0.1"), now).err(), Some(Refused::Address(5)));
        assert_eq!(admission.admit(ip("::ffff:10.0.0.1"), now).err(), Some(Refused::Address(5)), "the same address");
        assert_eq!(admission.admit(ip("10.0.0.3"), now).err(), Some(Refused::Address(0)));
        places.push(admission.admit(ip("10.0.0.2"), now).ok().unwrap());
        assert_eq!(admission.admit(ip("10.0.0.2"), now).err(), Some(Refused::Reserved));
        places.clear();
        assert!(admission.counts().by_ip.is_empty());
        assert!(admission.admit(ip("10.0.0.1"), now).is_ok());
    }

    #[test]
    fn the_last_places_are_for_this_machine() {
        let admission = Admission::new(limits());
        let now = Instant::now();
        let remote: Vec<Place> =
            (0..6).map(|n| admission.admit(ip(&format!("10.0.0.{n}")), now).ok().unwrap()).collect();
        assert_eq!(admission.admit(ip("10.0.0.9"), now).err(), Some(Refused::Reserved));
        assert!(!admission.is_full());
        let local = [ip("127.0.0.1"), ip("::1")].map(|ip| admission.admit(ip, now).ok().unwrap());
        assert!(admission.is_full());
        for late in ["127.0.0.1", "10.0.0.9"] {
            assert_eq!(admission.admit(ip(late), now).err(), Some(Refused::Full));
        }
        drop(local);
        drop(remote);
        assert!(admission.admit(ip("10.0.0.9"), now).is_ok());
        let tiny = Admission::new(AdmissionLimits { total: 1, ..limits() });
        assert!(tiny.admit(ip("10.0.0.9"), now).is_ok(), "one place is for everybody");
    }

    #[test]
    fn connections_beyond_the_rate_are_put_off() {
        let admission = Admission::new(AdmissionLimits { total: 100, per_ip: 100, per_second: 10, ..limits() });
        let begin = Instant::now();
        let mut places = Vec::new();
        for _ in 0..10 {
            assert_eq!(admission.pause(begin), Duration::ZERO);
            places.push(admission.admit(ip("10.0.0.1"), begin).ok());
        }
        let pause = admission.pause(begin);
        assert!(pause > Duration::ZERO && pause <= Duration::from_millis(100), "{pause:?}");
        assert_eq!(admission.pause(begin + Duration::from_millis(100)), Duration::ZERO);
        places.push(admission.admit(ip("10.0.0.1"), begin + Duration::from_millis(100)).ok());
        assert!(admission.pause(begin + Duration::from_millis(100)) > Duration::ZERO);
        assert_eq!(admission.pause(begin + Duration::from_secs(5)), Duration::ZERO);
        let unlimited = Admission::new(limits());
        (0..5).for_each(|_| drop(unlimited.admit(ip("10.0.0.1"), begin)));
        assert_eq!(unlimited.pause(begin), Duration::ZERO);
    }
}

//! The order of lists.
//!
//! ipvsadm compares addresses by a difference that wraps, so that 192.0.2.9 comes before 10.2.0.11; this is no order in the
//! mathematical sense, and what comes out depends on the way of sorting. It is glibc's merge sort, so it is here.

use crate::api::{ServerView, ServiceView};
use crate::model::ServiceId;
use std::net::IpAddr;

/// Sorts as glibc's `qsort` does: halves, the first of which is the smaller, merged with the first taken where both are equal.
fn merge_sort<T: Copy>(list: &mut [T], compare: &impl Fn(&T, &T) -> i32) {
    if list.len() < 2 {
        return;
    }
    let middle = list.len() / 2;
    merge_sort(&mut list[..middle], compare);
    merge_sort(&mut list[middle..], compare);
    let (first, second) = (list[..middle].to_vec(), list[middle..].to_vec());
    let (mut i, mut j) = (0, 0);
    for slot in list {
        let take_first = j == second.len() || (i < first.len() && compare(&first[i], &second[j]) <= 0);
        if take_first {
            *slot = first[i];
            i += 1;
        } else {
            *slot = second[j];
            j += 1;
        }
    }
}

fn words(ip: IpAddr) -> Vec<u32> {
    match ip {
        IpAddr::V4(ip) => vec![u32::from(ip)],
        IpAddr::V6(ip) => ip.octets().chunks_exact(4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]])).collect(),
    }
}

/// Difference of two addresses of one family.
fn address(a: IpAddr, b: IpAddr) -> i32 {
    words(a).iter().zip(words(b)).map(|(a, b)| a.wrapping_sub(b) as i32).find(|d| *d != 0).unwrap_or(0)
}

fn first_difference(differences: &[i32]) -> i32 {
    differences.iter().copied().find(|d| *d != 0).unwrap_or(0)
}

fn service(a: &ServiceId, b: &ServiceId) -> i32 {
    let family = i32::from(a.address.is_ipv6()) - i32::from(b.address.is_ipv6());
    first_difference(&[
        family,
        i32::from(a.protocol.number()) - i32::from(b.protocol.number()),
        if family == 0 { address(a.address, b.address) } else { 0 },
        i32::from(a.port) - i32::from(b.port),
    ])
}

/// Services in the order in which they are shown.
#[must_use]
pub(super) fn services(list: &[ServiceView], sorted: bool) -> Vec<&ServiceView> {
    let mut list: Vec<_> = list.iter().collect();
    if sorted {
        merge_sort(&mut list, &|a, b| service(&a.spec.id, &b.spec.id));
    }
    list
}

/// Servers in the order in which they are shown.
#[must_use]
pub(super) fn servers(list: &[ServerView], sorted: bool) -> Vec<&ServerView> {
    let mut list: Vec<_> = list.iter().collect();
    if sorted {
        merge_sort(&mut list, &|a, b| {
            let (a, b) = (&a.spec.id, &b.spec.id);
            let family = i32::from(a.address.is_ipv6()) - i32::from(b.address.is_ipv6());
            first_difference(&[
                family,
                if family == 0 { address(a.address, b.address) } else { 0 },
                i32::from(a.port) - i32::from(b.port),
            ])
        });
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_wrap() {
        let mut list = ["10.2.0.11", "127.0.0.1", "192.0.2.9", "10.2.0.12"].map(|a| a.parse::<IpAddr>().unwrap());
        merge_sort(&mut list, &|a, b| address(*a, *b));
        assert_eq!(list.map(|a| a.to_string()), ["192.0.2.9", "10.2.0.11", "10.2.0.12", "127.0.0.1"]);
    }

    #[test]
    fn equal_ones_keep_their_order() {
        let mut list = [(2, 'a'), (1, 'b'), (2, 'c'), (1, 'd'), (0, 'e')];
        merge_sort(&mut list, &|a, b| a.0 - b.0);
        assert_eq!(list, [(0, 'e'), (1, 'b'), (1, 'd'), (2, 'a'), (2, 'c')]);
    }
}

//! The kernel's answer to where packets to an address go.

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia};
use rtnetlink::Handle;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where packets to an address go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// To the director itself.
    Local,
    /// Out.
    Out {
        /// Interface.
        ifindex: u32,
        /// Gateway, or the address itself.
        neighbour: IpAddr,
        /// Address that packets leave from.
        source: Option<IpAddr>,
        /// MTU of the route, where it has one.
        mtu: Option<u32>,
    },
    /// Nowhere, and why.
    None(String),
}

/// Asks the kernel.
pub(super) async fn lookup(handle: &Handle, address: IpAddr) -> Route {
    let mut question = RouteMessage::default();
    let (family, prefix, destination) = match address {
        IpAddr::V4(ip) => (AddressFamily::Inet, 32, RouteAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(ip)),
    };
    question.header.address_family = family;
    question.header.destination_prefix_length = prefix;
    question.attributes.push(RouteAttribute::Destination(destination));
    match handle.route().get(question).execute().try_next().await {
        Ok(Some(answer)) => read(&answer, address),
        Ok(None) => Route::None(format!("no route to {address}")),
        Err(rtnetlink::Error::NetlinkError(e)) => match e.to_io().raw_os_error() {
            Some(code) if code == rustix::io::Errno::NETUNREACH.raw_os_error() => Route::None(format!("no route to {address}")),
            _ => Route::None(format!("no route to {address}: {}", e.to_io())),
        },
        Err(e) => Route::None(format!("no route to {address}: {e}")),
    }
}

fn ip(a: &RouteAddress) -> Option<IpAddr> {
    match a {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn read(answer: &RouteMessage, address: IpAddr) -> Route {
    match answer.header.kind {
        RouteType::Local => return Route::Local,
        RouteType::Unicast => {}
        RouteType::Unreachable | RouteType::BlackHole | RouteType::Prohibit => {
            return Route::None(format!("the route to {address} is of type {:?}", answer.header.kind).to_lowercase());
        }
        _ => return Route::None(format!("{address} is not a unicast address here")),
    }
    let (mut ifindex, mut neighbour, mut source, mut mtu) = (None, None, None, None);
    for a in &answer.attributes {
        match a {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(gateway) => neighbour = ip(gateway),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => neighbour = Some(IpAddr::V4(*gateway)),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => neighbour = Some(IpAddr::V6(*gateway)),
            RouteAttribute::PrefSource(s) => source = ip(s),
            RouteAttribute::MultiPath(hops) => {
                // The kernel answers with the one hop that it would take; this is for those that do not.
                if let Some(hop) = hops.first() {
                    ifindex = Some(hop.interface_index);
                    neighbour = hop.attributes.iter().find_map(|a| match a {
                        RouteAttribute::Gateway(gateway) => ip(gateway),
                        _ => None,
                    });
                }
            }
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|m| match m {
                    RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let Some(ifindex) = ifindex else { return Route::None(format!("the route to {address} has no interface")) };
    let neighbour = match neighbour {
        Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED)) | None => address,
        Some(gateway) => gateway,
    };
    Route::Out { ifindex, neighbour, source, mtu }
}

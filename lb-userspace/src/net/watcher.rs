//! The watcher: one task that owns the netlink socket and all that was learnt from it.
//!
//! Changes come in bursts (a link going down takes its addresses, routes and neighbours with it), so they are gathered for a
//! moment; then everything that may be concerned is worked out again, and what differs is reported.

use super::neighbour::{Neighbour, Neighbours};
use super::route::{self, Route};
use super::{LinkInfo, NextHop, Reach};
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::{Handle, MulticastGroup};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// How long a burst of changes is gathered.
const GATHER: Duration = Duration::from_millis(10);
/// How often neighbours that do not answer are asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How many of those ticks until neighbours in use are asked again, so that the kernel notices a new MAC.
const REFRESH_TICKS: u32 = 15;
/// Questions to the kernel under way at once.
const PIPELINE: usize = 64;

/// What the watcher reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// How a target is reached, when that changed.
    Reach {
        /// The target.
        address: IpAddr,
        /// How.
        reach: Reach,
    },
    /// An interface came, changed or went.
    Link(LinkInfo),
    /// Routes or neighbours changed: cached next hops may be wrong.
    NextHopsChanged,
}

/// Handle of the task; it ends when this is dropped.
#[derive(Debug)]
pub struct Watcher {
    targets: watch::Sender<Vec<IpAddr>>,
}

impl Watcher {
    /// Starts watching, in the network namespace of the calling thread, within a tokio runtime.
    ///
    /// # Errors
    /// The netlink socket cannot be opened or bound.
    pub fn start() -> io::Result<(Self, mpsc::UnboundedReceiver<Event>)> {
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ])?;
        tokio::spawn(connection);
        let (targets, wanted) = watch::channel(Vec::new());
        let (events, receiver) = mpsc::unbounded_channel();
        let task = Task {
            handle,
            events,
            links: HashMap::new(),
            sources: HashMap::new(),
            neighbours: Neighbours::default(),
            targets: BTreeMap::new(),
            ticks: 0,
        };
        tokio::spawn(task.run(messages, wanted));
        Ok((Self { targets }, receiver))
    }

    /// Sets the addresses to keep resolved. Each is reported once it is known how it is reached.
    pub fn set_targets(&self, targets: Vec<IpAddr>) {
        self.targets.send_replace(targets);
    }
}

#[derive(Debug, Default)]
struct Target {
    route: Option<Route>,
    reported: Option<Reach>,
}

/// What has to be worked out again.
#[derive(Default)]
struct Dirty {
    /// Everything from the start: messages were lost.
    all: bool,
    /// Routes, and with them everything that follows.
    routes: bool,
    /// Neighbours with these addresses.
    neighbours: BTreeSet<IpAddr>,
    /// New targets.
    targets: bool,
}

impl Dirty {
    fn is_clean(&self) -> bool {
        !self.all && !self.routes && !self.targets && self.neighbours.is_empty()
    }
}

struct Task {
    handle: Handle,
    events: mpsc::UnboundedSender<Event>,
    links: HashMap<u32, LinkInfo>,
    /// First address of each family of an interface.
    sources: HashMap<(u32, bool), Vec<IpAddr>>,
    neighbours: Neighbours,
    targets: BTreeMap<IpAddr, Target>,
    ticks: u32,
}

impl Task {
    async fn run<S>(mut self, mut messages: S, mut wanted: watch::Receiver<Vec<IpAddr>>)
    where
        S: Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr)> + Unpin,
    {
        let mut dirty = Dirty { all: true, ..Dirty::default() };
        let mut tick = tokio::time::interval(ASK_AGAIN);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = Some(Instant::now());
        loop {
            let gathered = async {
                match due {
                    Some(t) => tokio::time::sleep_until(t).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = messages.next() => match message {
                    Some((message, _)) => self.take(message, &mut dirty),
                    None => {
                        tracing::error!("the netlink socket closed: next hops are not followed any more");
                        return;
                    }
                },
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let list = wanted.borrow_and_update().clone();
                    self.set_targets(list);
                    dirty.targets = true;
                }
                () = gathered => {
                    due = None;
                    self.work(std::mem::take(&mut dirty)).await;
                }
                _ = tick.tick() => self.ask().await,
            }
            if due.is_none() && !dirty.is_clean() {
                due = Some(Instant::now() + if dirty.targets && !dirty.routes { Duration::ZERO } else { GATHER });
            }
            if self.events.is_closed() {
                return;
            }
        }
    }

    fn emit(&self, event: Event) {
        // A closed channel ends the loop.
        let _ = self.events.send(event);
    }

    fn take(&mut self, message: NetlinkMessage<RouteNetlinkMessage>, dirty: &mut Dirty) {
        let message = match message.payload {
            NetlinkPayload::InnerMessage(m) => m,
            NetlinkPayload::Overrun(_) => {
                tracing::warn!("netlink messages were lost: looking at everything again");
                dirty.all = true;
                return;
            }
            _ => return,
        };
        match message {
            RouteNetlinkMessage::NewLink(m) => dirty.routes |= self.link(&m, true),
            RouteNetlinkMessage::DelLink(m) => dirty.routes |= self.link(&m, false),
            RouteNetlinkMessage::NewAddress(m) => {
                self.address(&m, true);
                dirty.routes = true;
            }
            RouteNetlinkMessage::DelAddress(m) => {
                self.address(&m, false);
                dirty.routes = true;
            }
            RouteNetlinkMessage::NewNeighbour(m) => dirty.neighbours.extend(self.neighbours.update(&m, true)),
            RouteNetlinkMessage::DelNeighbour(m) => dirty.neighbours.extend(self.neighbours.update(&m, false)),
            RouteNetlinkMessage::NewRoute(_)
            | RouteNetlinkMessage::DelRoute(_)
            | RouteNetlinkMessage::NewRule(_)
            | RouteNetlinkMessage::DelRule(_) => dirty.routes = true,
            _ => {}
        }
    }

    /// Whether anything about the link changed.
    fn link(&mut self, message: &LinkMessage, present: bool) -> bool {
        // Bridges announce their ports' entries in their own family.
        if message.header.interface_family != AddressFamily::Unspec {
            return false;
        }
        let Some(link) = LinkInfo::of(message, present) else { return false };
        let before = if present { self.links.insert(link.index, link.clone()) } else { self.links.remove(&link.index) };
        if !present {
            self.sources.retain(|(index, _), _| *index != link.index);
        }
        if present && before.as_ref() == Some(&link) {
            return false;
        }
        self.emit(Event::Link(link));
        true
    }

    fn address(&mut self, message: &AddressMessage, present: bool) {
        let find = |local: bool| {
            message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(ip) if local => Some(*ip),
                AddressAttribute::Address(ip) if !local => Some(*ip),
                _ => None,
            })
        };
        let Some(ip) = find(true).or_else(|| find(false)) else { return };
        let list = self.sources.entry((message.header.index, ip.is_ipv4())).or_default();
        list.retain(|a| *a != ip);
        if present {
            list.push(ip);
        }
    }

    fn set_targets(&mut self, list: Vec<IpAddr>) {
        let list: BTreeSet<IpAddr> = list.into_iter().collect();
        self.targets.retain(|ip, _| list.contains(ip));
        for ip in list {
            self.targets.entry(ip).or_default();
        }
    }

    /// Works out what may have changed, and reports what did.
    async fn work(&mut self, dirty: Dirty) {
        if dirty.all
            && let Err(e) = self.read_all().await
        {
            tracing::error!("reading links, addresses and neighbours: {e}");
        }
        let routes = dirty.all || dirty.routes;
        let unknown: Vec<IpAddr> = self.targets.iter().filter(|(_, t)| routes || t.route.is_none()).map(|(ip, _)| *ip).collect();
        let handle = &self.handle;
        let found: Vec<(IpAddr, Route)> = stream::iter(unknown)
            .map(|ip| async move { (ip, route::lookup(handle, ip).await) })
            .buffer_unordered(PIPELINE)
            .collect()
            .await;
        for (ip, route) in found {
            if let Some(t) = self.targets.get_mut(&ip) {
                t.route = Some(route);
            }
        }
        let asked = self.report();
        self.ask_for(asked).await;
        if routes || !dirty.neighbours.is_empty() {
            self.emit(Event::NextHopsChanged);
        }
    }

    /// Reports every target whose reach changed; the neighbours that nobody has asked for yet.
    fn report(&mut self) -> BTreeSet<(u32, IpAddr)> {
        let mut ask = BTreeSet::new();
        let mut news = Vec::new();
        for (ip, target) in &self.targets {
            let Some(route) = &target.route else { continue };
            let reach = self.reach(route, &mut ask);
            if target.reported.as_ref() != Some(&reach) {
                news.push((*ip, reach));
            }
        }
        for (address, reach) in news {
            if let Some(t) = self.targets.get_mut(&address) {
                t.reported = Some(reach.clone());
            }
            self.emit(Event::Reach { address, reach });
        }
        ask
    }

    fn reach(&self, route: &Route, ask: &mut BTreeSet<(u32, IpAddr)>) -> Reach {
        let (ifindex, neighbour, source, mtu) = match route {
            Route::Local => return Reach::Local,
            Route::None(why) => return Reach::Unresolved(why.clone()),
            Route::Out { ifindex, neighbour, source, mtu } => (*ifindex, *neighbour, *source, *mtu),
        };
        let Some(link) = self.links.get(&ifindex) else {
            return Reach::Unresolved(format!("interface {ifindex} is gone"));
        };
        match self.neighbours.get(ifindex, neighbour) {
            Some(Neighbour::Known(mac)) => {
                let own = || self.sources.get(&(ifindex, neighbour.is_ipv4())).and_then(|l| l.first().copied());
                let unspecified = if neighbour.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
                Reach::Resolved(NextHop {
                    mac,
                    ifindex,
                    source: source.or_else(own).unwrap_or(unspecified),
                    mtu: mtu.map_or(link.mtu, |m| m.min(link.mtu)),
                })
            }
            Some(Neighbour::Silent) => Reach::Unresolved(format!("no answer from neighbour {neighbour} on {}", link.name)),
            Some(Neighbour::Asked) => Reach::Unresolved(format!("no answer yet from neighbour {neighbour} on {}", link.name)),
            None => {
                ask.insert((ifindex, neighbour));
                Reach::Unresolved(format!("no answer yet from neighbour {neighbour} on {}", link.name))
            }
        }
    }

    /// Every second: asks for neighbours that did not answer, and now and then for the others.
    async fn ask(&mut self) {
        self.ticks += 1;
        let all = self.ticks >= REFRESH_TICKS;
        if all {
            self.ticks = 0;
        }
        let mut list = BTreeSet::new();
        for target in self.targets.values() {
            if let Some(Route::Out { ifindex, neighbour, .. }) = &target.route {
                let known = matches!(self.neighbours.get(*ifindex, *neighbour), Some(Neighbour::Known(_)));
                if all || !known {
                    list.insert((*ifindex, *neighbour));
                }
            }
        }
        self.ask_for(list).await;
    }

    /// Makes the kernel ask for neighbours, as if it had a packet for them.
    async fn ask_for(&self, list: BTreeSet<(u32, IpAddr)>) {
        stream::iter(list)
            .for_each_concurrent(PIPELINE, |(ifindex, ip)| async move {
                let request =
                    self.handle.neighbours().add(ifindex, ip).state(NeighbourState::None).flags(NeighbourFlags::Use).replace();
                if let Err(e) = request.execute().await {
                    tracing::debug!(%ip, ifindex, "asking for the neighbour: {e}");
                }
            })
            .await;
    }

    /// Reads links, addresses and neighbours from the start.
    async fn read_all(&mut self) -> Result<(), rtnetlink::Error> {
        let links: Vec<_> = self.handle.link().get().execute().try_collect().await?;
        let present: BTreeSet<u32> = links.iter().map(|m| m.header.index).collect();
        let gone: Vec<LinkInfo> = self.links.values().filter(|l| !present.contains(&l.index)).cloned().collect();
        for link in gone {
            self.links.remove(&link.index);
            self.emit(Event::Link(LinkInfo { present: false, up: false, ..link }));
        }
        for m in &links {
            self.link(m, true);
        }
        self.sources.clear();
        for m in self.handle.address().get().execute().try_collect::<Vec<_>>().await? {
            self.address(&m, true);
        }
        self.neighbours.clear();
        for m in self.handle.neighbours().get().execute().try_collect::<Vec<_>>().await? {
            self.neighbours.update(&m, true);
        }
        Ok(())
    }
}

//! The interfaces that the program is to be on, as they come and go.

use super::attach::{AttachError, Attacher, Hook, index_of};
use crate::api::InterfaceView;
use crate::net::LinkInfo;

/// One of them.
struct Interface {
    name: String,
    /// Where the program is; `None` while it is not.
    on: Option<(u32, Hook)>,
    /// What was last said about why not, so that it is said once.
    complaint: Option<String>,
}

/// All of them.
pub struct Interfaces {
    attacher: Attacher,
    list: Vec<Interface>,
}

impl Interfaces {
    /// Puts the program on all of these, in place of an earlier daemon's where that is there.
    ///
    /// # Errors
    /// The first that is missing or cannot have it. Those before it keep it: the caller cleans up.
    pub fn start(mut attacher: Attacher, names: &[String]) -> Result<Self, AttachError> {
        attacher.keep_only(names);
        let mut list = Vec::with_capacity(names.len());
        for name in names {
            let index = index_of(name)?;
            let hook = attacher.attach(name, index)?;
            tracing::info!("interface {name}: balancing in {} mode", hook.name());
            list.push(Interface { name: name.clone(), on: Some((index, hook)), complaint: None });
        }
        Ok(Self { attacher, list })
    }

    /// An interface came, changed or went.
    pub fn set_link(&mut self, link: &LinkInfo) {
        let Self { attacher, list } = self;
        for interface in list {
            let here = interface.on.is_some_and(|(index, _)| index == link.index);
            if here && !link.present {
                interface.take_off(attacher);
            } else if link.present && !here && interface.name == link.name {
                interface.put_on(attacher, link.index);
            }
        }
    }

    /// Looks whether all interfaces are as they were, and tries again where the program is not. Events tell of most changes
    /// sooner; this is for those that they miss, and for what failed.
    pub fn check(&mut self) {
        let Self { attacher, list } = self;
        for interface in list {
            match index_of(&interface.name) {
                Ok(index) if interface.on.is_none_or(|(on, _)| on != index) => interface.put_on(attacher, index),
                Err(AttachError::NoInterface(_)) if interface.on.is_some() => interface.take_off(attacher),
                _ => {}
            }
        }
    }

    /// As the API shows them.
    #[must_use]
    pub fn views(&self) -> Vec<InterfaceView> {
        let view = |i: &Interface| InterfaceView {
            name: i.name.clone(),
            index: i.on.map_or(0, |(index, _)| index),
            mode: i.on.map_or("absent", |(_, hook)| hook.name()).into(),
        };
        self.list.iter().map(view).collect()
    }
}

impl Interface {
    fn take_off(&mut self, attacher: &Attacher) {
        tracing::warn!("interface {}: gone; balancing there goes on when it comes back", self.name);
        attacher.detach(&self.name);
        self.on = None;
    }

    fn put_on(&mut self, attacher: &mut Attacher, index: u32) {
        match attacher.attach(&self.name, index) {
            Ok(hook) => {
                tracing::info!("interface {}: balancing again, in {} mode", self.name, hook.name());
                (self.on, self.complaint) = (Some((index, hook)), None);
            }
            Err(e) => {
                let complaint = e.to_string();
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::error!("{complaint}");
                }
                (self.on, self.complaint) = (None, Some(complaint));
            }
        }
    }
}

//! The recorded corpus: histories of random pools with the choices of a real IPVS (`golden/diff-6.1.txt`, made by the test
//! `qemu_history`), against LVX's schedulers, and some of them against `lvxd` itself.

use anyhow::{Context, Result, bail, ensure};
use lb_userspace::model::SchedulerKind;
use lvx_tests::history::lvx::Lvx;
use lvx_tests::history::player::play;
use lvx_tests::history::tap::{DEVICE, Tap};
use lvx_tests::history::{History, Step, generate, law, model, parse_all};
use lvx_tests::lab::{Lvxd, Ns, possible};
use std::collections::BTreeSet;
use std::time::Duration;

const CORPUS: &str = include_str!("../golden/diff-6.1.txt");

fn corpus() -> Result<Vec<History>> {
    let all = parse_all(CORPUS)?;
    let kinds: BTreeSet<&str> = all.iter().map(|h| h.schedule.kind.name()).collect();
    ensure!(kinds.len() == generate::EXACT.len() && all.len() >= 300, "the corpus was not read right");
    Ok(all)
}

#[test]
fn schedulers_choose_as_recorded() -> Result<()> {
    let all = corpus()?;
    let wrong: Vec<String> = all.iter().filter_map(|h| Some(model::check(h).err()?.to_string())).collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    Ok(())
}

/// The comparison itself: one choice changed is found, where it was changed.
#[test]
fn a_changed_choice_is_found() -> Result<()> {
    for mut history in corpus()?.into_iter().take(26) {
        let last = history.steps.iter().rposition(|s| matches!(s, Step::Connect { got: Some(Some(_)), .. }));
        let Some(at) = last else { continue };
        if let Step::Connect { got, .. } = &mut history.steps[at] {
            *got = Some(None);
        }
        let mismatch = model::check(&history).err().with_context(|| history.to_string())?;
        assert_eq!(mismatch.prefix.steps.len(), at + 1);
    }
    Ok(())
}

/// `twos` draws lots; no Debian kernel has it. Its draws keep to the law that the kernel's source states.
#[test]
fn twos_keeps_to_its_law() -> Result<()> {
    (0..20).map(|n| generate::for_law(11, n, 600)).try_for_each(|history| law::check(&model::live(&history)))
}

/// A law that lets everything pass would be none: shares of another scheduler break it.
#[test]
fn another_scheduler_breaks_the_law() {
    let broken = (0..20).map(|n| generate::for_law(11, n, 600)).filter(|history| {
        let mut other = history.clone();
        other.schedule.kind = SchedulerKind::Rr;
        law::check(&model::live(&other)).is_err()
    });
    assert!(broken.count() > 10);
}

/// `wrr` with thresholds: whether a server hides others is only seen if the packet path heeds [`lb_userspace::sched::plan::Plan`]'s low water.
fn may_hide(history: &History) -> bool {
    let limited = |s: &Step| matches!(s, Step::Add(_, s) | Step::Edit(_, s) if s.upper > 0);
    history.schedule.kind == SchedulerKind::Wrr && history.steps.iter().any(limited)
}

/// The same with a real daemon and real packets: plans are made while they are used. Each scheduler, both families and protocols.
#[test]
fn lvxd_chooses_as_recorded() -> Result<()> {
    const EACH: usize = 2;
    if !possible() {
        return Ok(());
    }
    let ns = Ns::new()?;
    let mut tap = ns.run(Tap::new)?;
    let mut histories = Vec::new();
    for kind in generate::EXACT {
        let these = corpus()?
            .into_iter()
            .filter(|h| h.schedule.kind == kind && !h.mark && !may_hide(h) && !h.steps.contains(&Step::Wait));
        histories.extend(these.take(EACH));
    }
    ensure!(histories.len() == EACH * generate::EXACT.len(), "too few histories: {}", histories.len());
    for history in &histories {
        // A plan follows what happened within a millisecond, or later on a busy machine: who differs gets another chance, with more time.
        // Each has a daemon of its own: histories share clients and servers, whose answers could be two connections'.
        let mut differs = None;
        for settle_ms in [3, 30, 300] {
            let lvxd = Lvxd::start(&ns, &[DEVICE], &[])?;
            let mut balancer = Lvx::new(&lvxd.socket, Duration::from_millis(settle_ms))?;
            let lived = play(&mut balancer, &mut tap, std::slice::from_ref(history)).with_context(|| lvxd.log())?.remove(0);
            differs =
                lived.steps.iter().zip(&history.steps).position(|(a, b)| a != b).map(|at| (lived.prefix(at), history.prefix(at)));
            if differs.is_none() {
                break;
            }
        }
        if let Some((ours, theirs)) = differs {
            bail!("lvxd gives\n  {ours}\nwhere IPVS gave\n  {theirs}");
        }
    }
    Ok(())
}

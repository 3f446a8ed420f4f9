//! The recorded corpus: histories of random pools with the choices of a real IPVS (`golden/diff-6.1.txt`, made by the test
//! `qemu_history`), against LVX's schedulers, and some of them against `lvxd` itself.

use anyhow::{Context, Result, ensure};
use lb_userspace::model::SchedulerKind;
use lvx_tests::history::{History, generate, law, model, parse_all};
use std::collections::BTreeSet;

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
    use lvx_tests::history::Step;
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

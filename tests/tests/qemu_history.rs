//! Random histories of random pools, lived through by the IPVS of Debian's kernels in QEMU, against LVX's schedulers, choice by choice and
//! count by count.
//!
//! The seed is printed, and can be given: `LVX_SEED`; so can the number of histories, `LVX_COUNT`. `LVX_RECORD=FILE` writes what the kernel answered to a file: that is how the corpus in
//! `golden/` was made.

use anyhow::{Context, Result};
use lvx_tests::history::{generate, guest, model};
use lvx_tests::qemu::Kernel;
use std::fmt::Write;
use std::path::Path;

/// Random numbers for one run: given, or the time.
fn seed() -> Result<u64> {
    if let Ok(seed) = std::env::var("LVX_SEED") {
        return seed.parse().context("LVX_SEED is no number");
    }
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())
}

fn compare(kernel: Kernel, count: u32) -> Result<()> {
    let count = std::env::var("LVX_COUNT").ok().and_then(|c| c.parse().ok()).unwrap_or(count);
    let seed = seed()?;
    println!("seed {seed} (LVX_SEED)");
    let recorded = guest::record(kernel, Path::new(env!("CARGO_BIN_EXE_lvx-history")), &generate::histories(seed, 0, count))?;
    if let Some(file) = std::env::var_os("LVX_RECORD") {
        let mut text = format!("# Histories lived through by the IPVS of {kernel:?}, from seed {seed}.\n");
        recorded.iter().try_for_each(|history| writeln!(text, "{history}"))?;
        std::fs::write(&file, text).with_context(|| format!("write {}", Path::new(&file).display()))?;
    }
    let wrong: Vec<_> = recorded.iter().filter_map(|history| model::check(history).err()).collect();
    for mismatch in &wrong {
        println!("{mismatch}");
    }
    assert!(wrong.is_empty(), "{} of {count} histories of seed {seed} differ", wrong.len());
    Ok(())
}

#[test]
#[ignore = "slow: QEMU"]
fn kernel_6_1_chooses_as_lvx_does() -> Result<()> {
    compare(Kernel::V6_1, 390)
}

#[test]
#[ignore = "slow: QEMU"]
fn kernel_6_12_chooses_as_lvx_does() -> Result<()> {
    compare(Kernel::V6_12, 130)
}

//! `lvx-history ipvs|lvx FILE [SOCKET]`: lives through the histories in a file with the kernel's IPVS, or with the `lvxd` behind a
//! socket, in this network namespace, and prints them with the answers.

use anyhow::{Context, Result, bail};
use lvx_tests::history::player::{Balancer, play};
use lvx_tests::history::{ipvs::Ipvs, lvx::Lvx, parse_all, tap::Tap};
use std::path::Path;
use std::time::Duration;

/// So many services at a time: connections that closed at the beginning are to be there still at the end.
const AT_A_TIME: usize = 150;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (mut balancer, file): (Box<dyn Balancer>, &str) = match words[..] {
        ["ipvs", file] => (Box::new(Ipvs::new()?), file),
        ["lvx", file, socket] => (Box::new(Lvx::new(Path::new(socket), Duration::from_millis(20))?), file),
        _ => bail!("usage: lvx-history ipvs FILE | lvx FILE SOCKET"),
    };
    let histories = parse_all(&std::fs::read_to_string(file).with_context(|| format!("read {file}"))?)?;
    let mut tap = Tap::new()?;
    for some in histories.chunks(AT_A_TIME) {
        for history in play(balancer.as_mut(), &mut tap, some)? {
            println!("{history}");
        }
    }
    Ok(())
}

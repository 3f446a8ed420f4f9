//! The daemon as a whole, as far as nothing needs a privilege.

use super::args::Args;
use super::*;
use std::path::{Path, PathBuf};

fn files(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect()
}

#[test]
fn check_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("lvx.toml");
    let args = Args {
        config: Some(config.clone()),
        interfaces: vec!["lvx-no-such0".into()],
        socket: Some(dir.path().join("run/lvxd.sock")),
        pin_dir: Some(dir.path().join("pins")),
        check: true,
        discard: true,
        ..Args::default()
    };
    for (text, code) in [("", ExitCode::SUCCESS), ("mode = \"auto\"", ExitCode::SUCCESS), ("mode = 1", ExitCode::FAILURE)] {
        std::fs::write(&config, text).unwrap();
        assert_eq!(run(&args), code, "{text}");
        assert_eq!(files(dir.path()), std::slice::from_ref(&config));
    }
    // Without --check the absent interface is found before anything is made.
    std::fs::write(&config, "").unwrap();
    assert_eq!(run(&Args { check: false, ..args }), ExitCode::FAILURE);
    assert_eq!(files(dir.path()), [config]);
}

//! Who may do what: users and groups by number, which nobody has to make.

use anyhow::{Context, Result, ensure};
use lvx_tests::lab::{Lvxd, Ns, possible, public_copy, until};
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const WRITERS: u32 = 64_201;
const READERS: u32 = 64_202;
const USER: u32 = 64_203;

/// A daemon whose sockets are for these groups, and a lvxadm that everybody can run.
struct Director {
    lvxd: Lvxd,
    adm: PathBuf,
    _files: tempfile::TempDir,
    _hosts: (Ns, Ns),
}

impl Director {
    fn start() -> Result<Self> {
        let (ns, other) = (Ns::new()?, Ns::new()?);
        ns.cable("eth0", &other, "eth0", 1500)?;
        let files = tempfile::tempdir()?;
        let config = files.path().join("lvx.toml");
        std::fs::write(&config, format!("[socket]\ngroup = \"{WRITERS}\"\nread_group = \"{READERS}\""))?;
        let lvxd = Lvxd::start(&ns, &["eth0"], &["--config", &config.display().to_string()])?;
        set_permissions(lvxd.socket.parent().context("no directory")?, Permissions::from_mode(0o755))?;
        let adm = public_copy("lvxadm", files.path())?;
        Ok(Self { lvxd, adm, _files: files, _hosts: (ns, other) })
    }

    fn read_only(&self) -> PathBuf {
        self.lvxd.socket.with_file_name("lvxd-ro.sock")
    }

    /// A command as a user of this group alone.
    fn as_group(&self, program: impl AsRef<std::ffi::OsStr>, group: u32) -> Command {
        let mut c = Command::new(program);
        // With the user, the standard library also drops all supplementary groups.
        c.uid(USER).gid(group).current_dir("/").env("LVX_SOCKET", &self.lvxd.socket);
        c
    }

    fn adm(&self, group: u32, words: &str) -> Result<Output> {
        Ok(self.as_group(&self.adm, group).args(words.split_whitespace()).output()?)
    }

    /// Status and body of a request.
    fn curl(&self, group: u32, socket: &Path, words: &[&str]) -> Result<String> {
        let mut c = self.as_group("curl", group);
        c.args(["-sS", "--max-time", "10", "-w", " %{http_code}", "--unix-socket"]).arg(socket).args(words);
        Ok(String::from_utf8_lossy(&c.output()?.stdout).into_owned())
    }
}

fn stderr(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

#[test]
fn groups() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let d = Director::start()?;
    for (path, group) in [(&d.lvxd.socket, WRITERS), (&d.read_only(), READERS)] {
        let m = std::fs::metadata(path)?;
        assert_eq!((m.mode() & 0o777, m.gid()), (0o660, group), "{}", path.display());
    }
    // Writers write and read.
    let o = d.adm(WRITERS, "-A -t 192.0.2.1:80 -s rr")?;
    ensure!(o.status.success(), "{}", stderr(&o));
    ensure!(d.adm(WRITERS, "-L -n")?.status.success());
    // Readers read, by the same command, and are refused plainly.
    for words in ["-L -n", "-L -n -c", "-L -n --stats", "-S -n", "-L --timeout", "status"] {
        let o = d.adm(READERS, words)?;
        ensure!(o.status.success(), "{words}: {}", stderr(&o));
    }
    assert!(String::from_utf8_lossy(&d.adm(READERS, "-L -n")?.stdout).contains("192.0.2.1:80"));
    for words in ["-C", "-Z", "-D -t 192.0.2.1:80", "--set 1 2 3"] {
        let o = d.adm(READERS, words)?;
        assert_eq!(o.status.code(), Some(2), "{words}");
        ensure!(stderr(&o).contains("Permission denied") && stderr(&o).contains("in the socket's group"), "{}", stderr(&o));
    }
    // Straight at the other socket, too.
    for words in ["-C", "-Z"] {
        let o = d.adm(READERS, &format!("{words} --socket {}", d.read_only().display()))?;
        ensure!(!o.status.success() && stderr(&o).contains("for reading only"), "{words}: {}", stderr(&o));
    }
    let body = r#"{"edits":[{"op":"clear"}]}"#;
    let answer = d.curl(READERS, &d.read_only(), &["-d", body, "http://lvxd/v1/edits"])?;
    ensure!(answer.ends_with("403") && answer.contains("POST /v1/edits"), "{answer}");
    ensure!(answer.contains(&d.lvxd.socket.display().to_string()), "{answer}");
    ensure!(d.curl(READERS, &d.read_only(), &["http://lvxd/v1/services"])?.ends_with("200"));
    // Neither writers nor others get at the readers' socket, and others get at nothing.
    for (group, socket) in [(READERS, &d.lvxd.socket), (USER, &d.lvxd.socket), (USER, &d.read_only())] {
        ensure!(d.curl(group, socket, &["http://lvxd/v1/status"])?.ends_with("000"));
    }
    let o = d.adm(USER, "-L -n")?;
    ensure!(o.status.code() == Some(2) && stderr(&o).contains("Permission denied"), "{}", stderr(&o));
    assert_eq!(d.lvxd.adm("-S -n")?, "-A -t 192.0.2.1:80 -s rr\n");
    Ok(())
}

/// Who changed what is in the log.
#[test]
fn changes_are_logged() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let d = Director::start()?;
    ensure!(d.adm(WRITERS, "-A -t 192.0.2.1:80 -s wrr")?.status.success());
    ensure!(!d.adm(WRITERS, "-D -t 192.0.2.9:80")?.status.success());
    ensure!(d.adm(WRITERS, "-Z -t 192.0.2.1:80")?.status.success());
    d.curl(READERS, &d.read_only(), &["-d", "{}", "http://lvxd/v1/zero"])?;
    d.curl(WRITERS, &d.lvxd.socket, &["-d", "{\"a\\u001b[2J\": 1}", "http://lvxd/v1/edits"])?;
    ensure!(d.adm(READERS, "-L -n")?.status.success());
    let wanted = [
        "): add service TCP 192.0.2.1:80 (wrr): done",
        "): delete service TCP 192.0.2.9:80: refused (404): there is no service TCP 192.0.2.9:80",
        "): zero the counters of service TCP 192.0.2.1:80: done",
        "): POST /v1/zero: refused (403): POST /v1/zero: this socket is for reading only",
        "): POST /v1/edits: refused (400): body: unknown field `a\\u{1b}[2J`",
    ];
    until(Duration::from_secs(10), || {
        let log = d.lvxd.log();
        for line in wanted {
            let found = log.lines().find(|l| l.contains(line)).with_context(|| format!("no `{line}` in {log}"))?;
            ensure!(found.contains("INFO") && found.contains(&format!("uid {USER} (process ")), "{found}");
        }
        ensure!(!log.contains('\u{1b}'), "{log}");
        ensure!(!log.contains("/v1/services"), "reading is for the debug level: {log}");
        Ok(())
    })
}

/// Without a group for reading there is no second socket; a group that does not exist is named.
#[test]
fn no_group_for_reading() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let (ns, other) = (Ns::new()?, Ns::new()?);
    ns.cable("eth0", &other, "eth0", 1500)?;
    let lvxd = Lvxd::start(&ns, &["eth0"], &[])?;
    ensure!(!lvxd.socket.with_file_name("lvxd-ro.sock").exists());
    let files = tempfile::tempdir()?;
    let config = files.path().join("lvx.toml");
    std::fs::write(&config, "[socket]\nread_group = \"no-such-group\"")?;
    let e = Lvxd::start(&ns, &["eth0"], &["--config", &config.display().to_string()]).err().context("it started")?.to_string();
    ensure!(e.contains("`no-such-group`") && e.contains("lvxd-ro.sock"), "{e}");
    Ok(())
}

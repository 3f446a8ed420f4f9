//! The Debian package: made, looked at by dpkg and lintian, installed and purged with the machine's own dpkg on a copy of its root,
//! an overlay that goes with its mount namespace.

use anyhow::{Context, Result, ensure};
use lvx_tests::lab::{binary, possible};
use std::path::{Path, PathBuf};
use std::process::Command;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

fn has(program: &str) -> bool {
    Command::new("which").arg(program).output().is_ok_and(|o| o.status.success())
}

/// The package, of the binaries under test.
fn package(out: &Path) -> Result<PathBuf> {
    let lvxd = binary("lvxd")?;
    let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    c.args(["xtask", "package", "--deb", "--bin-dir"]).arg(lvxd.parent().context("no directory")?).arg("--out").arg(out);
    let said = run(c.current_dir(workspace()))?;
    Ok(PathBuf::from(said.lines().last().context("no package was made")?))
}

/// Runs in a root of its own; says what failed.
const INSTALL: &str = r#"
set -eu
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay none -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cp "$2" "$1/root/lvx.deb"
cp "$3" "$1/root/steps"
mount --rbind /proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
exec chroot "$1/root" sh -eu /steps
"#;

const STEPS: &str = r#"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
fail() { echo "FAILED: $*"; exit 1; }
# dpkg's own records and backups, and the shell's, are no remains of the package.
files() { find /etc /usr /run /opt /var \( -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path '*/__pycache__' \) -prune \
    -o -path '/etc/g*shadow*' -o -path '/etc/group*' -o -print | sort; }
groups() { sort /etc/group /etc/gshadow 2>/dev/null; }
dpkg -P lvx >/dev/null 2>&1 || true
files > /tmp/before; groups > /tmp/groups

dpkg -i /lvx.deb || fail install
[ "$(/usr/sbin/lvxd --version)" = "$(dpkg-query -W -f 'lvxd ${Version}' lvx | sed 's/-[^-]*$//')" ] || fail version
/usr/sbin/lvxadm --help > /tmp/help; grep -q -- --add-service /tmp/help || fail help
getent group lvx lvx-read >/dev/null || fail "no groups"
[ -L /etc/systemd/system/multi-user.target.wants/lvxd.service ] || fail "not enabled"
! dpkg -L lvx | grep -q ipvsadm || fail "stands in ipvsadm's way"
grep -q '^group = "lvx"' /etc/lvx/lvx.toml && grep -q '^read_group = "lvx-read"' /etc/lvx/lvx.toml || fail "the group may not use the socket"
[ -z "$(dpkg --verify lvx)" ] || fail "$(dpkg --verify lvx)"
lvxd --check > /tmp/check 2>&1 && fail "without an interface the configuration is wrong"
grep -qi interface /tmp/check || fail "$(cat /tmp/check)"
sed -i 's/^#interfaces = .*/interfaces = ["eth0"]/' /etc/lvx/lvx.toml
lvxd --check || fail "configured"
for page in lvxadm.8 lvxd.8 lvx.toml.5 lvxadm-top.8; do
    [ -s /usr/share/man/man${page##*.}/$page.gz ] || fail "no $page"
done
bash -c 'source /usr/share/bash-completion/completions/lvxadm; complete -p lvxadm' >/dev/null || fail "completions"
systemd-analyze verify /usr/lib/systemd/system/lvxd.service > /tmp/verify 2>&1 || fail "$(cat /tmp/verify)"
! grep lvxd /tmp/verify || fail "unit: $(cat /tmp/verify)"
systemd-sysusers --dry-run lvx.conf || fail sysusers
systemd-tmpfiles --create --dry-run lvx.conf 2>/dev/null || systemd-tmpfiles --cat-config lvx.conf >/dev/null || fail tmpfiles

dpkg -i /lvx.deb || fail "installing again"
grep -q '^interfaces = \["eth0"\]' /etc/lvx/lvx.toml || fail "the configuration did not stay"
dpkg -r lvx || fail remove
[ -e /etc/lvx/lvx.toml ] && [ ! -e /usr/sbin/lvxd ] || fail "removed too much, or too little"
mkdir -p /run/lvx; touch /run/lvx/state /etc/lvx/mine.toml
dpkg -P lvx || fail purge
files > /tmp/after; groups > /tmp/groups-after
diff /tmp/before /tmp/after || fail "purging left something"
diff /tmp/groups /tmp/groups-after || fail "purging left the group"
echo everything is in order
"#;

#[test]
fn installs_and_purges() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let deb = package(dir.path())?;
    let list = run(Command::new("dpkg-deb").arg("-c").arg(&deb))?;
    for file in ["usr/sbin/lvxd", "usr/sbin/lvxadm", "etc/lvx/lvx.toml", "systemd/system/lvxd.service", "doc/lvx/copyright"] {
        assert!(list.lines().any(|l| l.ends_with(file)), "no {file}: {list}");
    }
    assert!(list.lines().all(|l| l.contains(" root/root ")) && !list.contains("ipvsadm"), "{list}");

    let (root, steps) = (dir.path().join("root"), dir.path().join("steps"));
    std::fs::create_dir(&root)?;
    std::fs::write(&steps, STEPS)?;
    let mut c = Command::new("unshare");
    c.args(["--mount", "--propagation", "private", "sh", "-c", INSTALL, "sh"]).arg(&root).arg(&deb).arg(&steps);
    let output = c.output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("everything is in order"), "{said}");

    if has("lintian") {
        let output = Command::new("lintian").args(["--fail-on", "error", "--allow-root"]).arg(&deb).output()?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
    }
    Ok(())
}

/// Lower is better; what is left is what balancing needs: the network, BPF, root.
#[test]
fn the_unit_gives_away_little() -> Result<()> {
    if !has("systemd-analyze") {
        assert!(std::env::var_os("CI").is_none(), "systemd-analyze is missing");
        return Ok(());
    }
    let unit = workspace().join("configs/lvxd.service").canonicalize()?;
    let mut c = Command::new("systemd-analyze");
    c.args(["security", "--no-pager", "--offline=true", "--threshold=25"]).arg(&unit);
    let said = run(&mut c)?;
    assert!(said.contains("Overall exposure level for lvxd.service: "), "{said}");
    Ok(())
}

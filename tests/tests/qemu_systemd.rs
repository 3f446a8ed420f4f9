//! The service as an operator has it: the Debian package on a Debian with systemd (in QEMU, kernel 6.1), installed, configured, started,
//! reloaded, restarted, killed, stopped, started again and purged, under a download that must not notice.

use anyhow::{Context, Result, ensure};
use lvx_tests::lab::{binary, possible};
use lvx_tests::qemu::{Guest, Kernel};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const SCRIPT: &str = r#"
set -u
fail() { echo "FAILED: $*"; systemctl status lvxd --no-pager -l; journalctl -u lvxd --no-pager -o cat | tail -40; exit 1; }
active() { # waits until the daemon is ready
    for i in $(seq 100); do [ "$(systemctl is-active lvxd)" = active ] && return; sleep 1; done
    fail "lvxd is $(systemctl is-active lvxd)"
}
for n in client s1 s2; do ip netns add $n; ip -n $n link set lo up; done
cable() { # name here, namespace
    ip link add $1 type veth peer name eth0 netns $2; ip link set $1 up; ip -n $2 link set eth0 up
    ethtool -K $1 tx off rx off tso off gso off gro off >/dev/null
    ip netns exec $2 ethtool -K eth0 tx off rx off tso off gso off gro off >/dev/null
}
cable c0 client; cable d1 s1; cable d2 s2
ip addr add 10.1.0.1/24 dev c0; ip addr add 10.9.0.1/32 dev lo
ip -n client addr add 10.1.0.2/24 dev eth0; ip -n client route add default via 10.1.0.1
echo 1 > /proc/sys/net/ipv4/ip_forward
for i in 1 2; do
    ip addr add 10.2.$i.1/24 dev d$i
    ip -n s$i addr add 10.2.$i.2/24 dev eth0; ip -n s$i route add default via 10.2.$i.1
    mkdir -p /srv/$i; echo server-$i > /srv/$i/name; cp /big /srv/$i/big
    ip netns exec s$i /bin/busybox httpd -p 80 -h /srv/$i
done
names() { for i in 1 2 3 4; do ip netns exec client curl -sS -f --max-time 20 http://10.9.0.1/name || fail "no answer"; done; }

echo "== install"
dpkg -i /lvx.deb || fail dpkg
systemctl is-active lvxd
getent group lvx >/dev/null || fail "no group"
cat > /etc/lvx/lvx.toml <<END
interfaces = ["c0", "d1", "d2"]
mode = "generic"
[sizes]
connections = 100000
[[service]]
protocol = "tcp"
address = "10.9.0.1:80"
scheduler = "rr"
[[service.server]]
address = "10.2.1.2:80"
forwarding = "nat"
END
systemctl start lvxd || fail start
active
# What the file does not say yet is what a reload brings.
printf '[[service.server]]\naddress = "10.2.2.2:80"\nforwarding = "nat"\n' >> /etc/lvx/lvx.toml
systemctl reload lvxd || fail reload
for i in $(seq 20); do lvxadm -L -n | grep -q 10.2.2.2:80 && break; sleep 1; done
sleep 3
echo "== balances"
names

echo "== download"
ip netns exec client curl -sS -f --max-time 800 --limit-rate 12k http://10.9.0.1/big > /got 2> /got.error &
download=$!
sleep 3
list() { lvxadm -L -n | sed 's/ *$//'; }
before=$(list); pid=$(systemctl show -P MainPID lvxd)

echo "== reload"
systemctl reload lvxd || fail reload
sleep 1
[ "$(systemctl show -P MainPID lvxd)" = $pid ] || fail "a reload is no restart"
[ "$(list)" = "$before" ] || fail "reload changed $before to $(list)"

echo "== restart"
systemctl restart lvxd || fail restart
active
[ "$(systemctl show -P MainPID lvxd)" != $pid ] || fail "not restarted"
[ "$(list)" = "$before" ] || fail "restart changed $before to $(list)"
names

echo "== kill"
before=$(list); pid=$(systemctl show -P MainPID lvxd)
systemctl kill -s KILL lvxd
names
sleep 1; active
[ "$(systemctl show -P MainPID lvxd)" != $pid ] || fail "not restarted"
kill -0 $download && { lvxadm -L -n | grep -q 'Masq    1      1 ' || fail "the download's connection is not known: $(list)"; }

echo "== watchdog"
# A daemon that hangs is ended and comes back.
mkdir -p /run/systemd/system/lvxd.service.d
printf '[Service]\nWatchdogSec=8\n' > /run/systemd/system/lvxd.service.d/test.conf
systemctl daemon-reload; systemctl restart lvxd; active
pid=$(systemctl show -P MainPID lvxd)
sleep 16
[ "$(systemctl show -P MainPID lvxd)" = $pid ] || fail "the watchdog bit a daemon that works"
kill -STOP $pid
for i in $(seq 60); do [ "$(systemctl show -P MainPID lvxd)" != $pid ] && break; sleep 1; done
active
[ "$(systemctl show -P MainPID lvxd)" != $pid ] || fail "the watchdog let a daemon hang"
names

echo "== stop"
systemctl stop lvxd || fail stop
[ "$(systemctl is-active lvxd)" = inactive ] || fail "not inactive"
names
systemctl start lvxd || fail "start again"
active
list | grep -q 10.2.1.2:80 || fail "services are gone: $(list)"
wait $download || fail "the download: $(cat /got.error)"
cmp /got /big || fail "the download differs"

echo "== logs"
journalctl -u lvxd --no-pager -o cat | grep -iE 'error|denied|not permitted|read-only|panic' && fail "errors in the log"
systemd-analyze security lvxd --no-pager | tail -1

echo "== purge"
dpkg -P lvx || fail purge
for gone in /usr/sbin/lvxd /usr/sbin/lvxadm /etc/lvx /run/lvx /sys/fs/bpf/lvx /lib/systemd/system/lvxd.service; do
    [ -e $gone ] && fail "$gone is still there"
done
getent group lvx && fail "the group is still there"
systemctl is-active lvxd && fail "still active"
ip -d link show c0 | grep -q xdp && fail "XDP is still on the interface"
echo "== done"
"#;

/// The package, made from the programs under test.
fn package(out: &std::path::Path) -> Result<PathBuf> {
    let programs = binary("lvxd")?;
    let mut xtask = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    xtask
        .args(["xtask", "package", "--deb", "--bin-dir"])
        .arg(programs.parent().context("no directory of programs")?)
        .arg("--out")
        .arg(out)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = xtask.output().context("start cargo")?;
    ensure!(output.status.success(), "{xtask:?}: {}", String::from_utf8_lossy(&output.stderr));
    let path = String::from_utf8_lossy(&output.stdout).lines().last().map(PathBuf::from).context("no package was named")?;
    ensure!(path.is_file(), "{} is no package", path.display());
    Ok(path)
}

#[test]
#[ignore = "slow: QEMU"]
fn the_debian_package_on_a_system_with_systemd() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let files = tempfile::tempdir()?;
    let package = package(files.path())?;
    let big: Vec<u8> = (0..750_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let guest = Guest::new(Kernel::V6_1)?
        .systemd()
        .module("veth")
        .memory_mb(2048)
        .timeout(Duration::from_secs(900))
        .copy(&package, "/lvx.deb")?
        .file("/big", big)?;
    let output = guest.run(SCRIPT)?;
    println!("{}", output.text);
    ensure!(output.status == 0 && output.text.contains("== done"), "{}", output.text);
    for server in ["server-1", "server-2"] {
        ensure!(output.text.matches(server).count() >= 10, "{server}: {}", output.text);
    }
    Ok(())
}

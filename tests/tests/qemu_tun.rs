//! TUN to real servers with the kernel's own tunnel devices, on Debian's kernels in QEMU. The director runs in generic mode there, so
//! that the other ends of its veth pairs need no program.

use anyhow::{Context, Result};
use lvx_tests::lab::binary;
use lvx_tests::qemu::{Guest, Kernel};
use std::time::Duration;

/// A client, a director and two servers; the servers take packets from tunnel devices.
const SCRIPT: &str = r#"
set -e
for n in client s1 s2; do ip netns add $n; ip -n $n link set lo up; done
cable() { # name here, namespace, name there
    ip link add $1 mtu 1600 type veth peer name $3 netns $2
    ip link set $1 up; ip -n $2 link set $3 up
    ethtool -K $1 tx off rx off tso off gso off gro off >/dev/null
    ip netns exec $2 ethtool -K $3 tx off rx off tso off gso off gro off >/dev/null
}
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
cable c0 client eth0; cable d1 s1 eth0; cable d2 s2 eth0
ip -n client link set eth0 mtu 1500; ip link set c0 mtu 1500
ip addr add 10.1.0.1/24 dev c0; ip -6 addr add fd01::1/64 dev c0 nodad
ip -n client addr add 10.1.0.2/24 dev eth0; ip -n client -6 addr add fd01::2/64 dev eth0 nodad
ip -n client route add default via 10.1.0.1; ip -n client -6 route add default via fd01::1
echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
for i in 1 2; do
    ip addr add 10.2.$i.1/24 dev d$i; ip -6 addr add fd02:$i::1/64 dev d$i nodad
    ip -n s$i addr add 10.2.$i.2/24 dev eth0; ip -n s$i -6 addr add fd02:$i::2/64 dev eth0 nodad
    ip -n s$i route add default via 10.2.$i.1; ip -n s$i -6 route add default via fd02:$i::1
    # As the README says for servers with the kernel's tunnel devices.
    ip netns exec s$i sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
    ip -n s$i link set tunl0 up; ip -n s$i addr add 10.9.0.1/32 dev tunl0
    ip -n s$i link set ip6tnl0 up; ip -n s$i -6 addr add fd09::1/128 dev ip6tnl0 nodad
    ip netns exec s$i sysctl -qw net.ipv4.conf.tunl0.rp_filter=0
    # The other family in either: one more device of each kind.
    ip -n s$i link add name t46 type ip6tnl local fd02:$i::2 remote fd02:$i::1 mode any
    ip -n s$i link set t46 up; ip netns exec s$i sysctl -qw net.ipv4.conf.t46.rp_filter=0
    ip -n s$i link set sit0 up
    mkdir -p /srv/$i; echo server-$i > /srv/$i/name; cp /big /srv/$i/big
    ip netns exec s$i busybox httpd -p 80 -h /srv/$i
    ip netns exec s$i busybox httpd -p [::]:80 -h /srv/$i 2>/dev/null || true
done
mkdir -p /run/lvx
lvxd=LVXD; adm="LVXADM --socket /run/lvx/s"
$lvxd -i c0 -i d1 -i d2 --mode generic --socket /run/lvx/s > /run/lvx/log 2>&1 &
for i in $(seq 100); do grep -q ready /run/lvx/log && break; sleep 0.1; done
cat /run/lvx/log
service() { # vip, its first server, its second
    $adm -A -t $1 -s rr; $adm -a -t $1 -r $2 -i; $adm -a -t $1 -r $3 -i
}
service 10.9.0.1:80 10.2.1.2 10.2.2.2
service [fd09::1]:80 fd02:1::2 fd02:2::2
sleep 3
fetch() { # what, url
    echo "== $1"
    for i in 1 2 3 4; do ip netns exec client curl -sS -f -g --max-time 20 $2/name; done
    ip netns exec client curl -sS -f -g --max-time 60 $2/big | sha256sum
}
fetch "IPv4 in IPv4" http://10.9.0.1
fetch "IPv6 in IPv6" http://[fd09::1]
# Either family's service over the other's tunnel.
$adm -C
service 10.9.0.1:80 fd02:1::2 fd02:2::2
service [fd09::1]:80 10.2.1.2 10.2.2.2
sleep 3
fetch "IPv4 in IPv6" http://10.9.0.1
fetch "IPv6 in IPv4" http://[fd09::1]
$adm status
kill %1; wait %1
"#;

fn tunnels(kernel: Kernel) -> Result<()> {
    let big: Vec<u8> = (0..2_000_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(2_000_000).collect();
    let files = tempfile::tempdir()?;
    let path = files.path().join("big");
    std::fs::write(&path, &big)?;
    let hash = std::process::Command::new("sha256sum").arg(&path).output()?;
    let hash = String::from_utf8_lossy(&hash.stdout)[..64].to_owned();
    let (lvxd, lvxadm) = (binary("lvxd")?, binary("lvxadm")?);
    let mut guest = Guest::new(kernel)?.memory_mb(2048).timeout(Duration::from_secs(300)).file("/big", big)?;
    for p in ["ip", "ethtool", "curl", "sysctl", "sha256sum", "seq", "busybox"] {
        guest = guest.program(p).with_context(|| p.to_owned())?;
    }
    guest = guest.program(&lvxd)?.program(&lvxadm)?;
    for m in ["veth", "ipip", "ip6_tunnel", "sit"] {
        guest = guest.module(m);
    }
    let script = SCRIPT.replace("LVXADM", &lvxadm.display().to_string()).replace("LVXD", &lvxd.display().to_string());
    let output = guest.run(&script)?;
    assert_eq!(output.status, 0, "{}", output.text);
    for part in output.text.split("== ").skip(1) {
        let name = part.lines().next().unwrap_or_default();
        for server in ["server-1", "server-2"] {
            assert_eq!(part.matches(server).count(), 2, "{name}: {}", output.text);
        }
        assert!(part.contains(&hash), "{name}: {}", output.text);
    }
    assert_eq!(output.text.matches("== ").count(), 4);
    Ok(())
}

#[test]
#[ignore = "slow: QEMU"]
fn kernel_6_1() -> Result<()> {
    tunnels(Kernel::V6_1)
}

#[test]
#[ignore = "slow: QEMU"]
fn kernel_6_12() -> Result<()> {
    tunnels(Kernel::V6_12)
}

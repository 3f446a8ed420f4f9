//! A network namespace, and processes and threads in it.

use anyhow::{Context, Result, bail};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces, unshare_unsafe};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A network namespace; it lives as long as this, or a process in it.
#[derive(Clone, Debug)]
pub struct Ns {
    file: Arc<File>,
}

impl Ns {
    /// A new one, with nothing but a loopback interface, which is up.
    ///
    /// # Errors
    /// No privilege, or no `ip`.
    pub fn new() -> Result<Self> {
        let file = std::thread::spawn(|| -> Result<File> {
            // SAFETY: a thread of its own, which ends at once: nothing else sees its network.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("making a network namespace")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        })
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that makes a namespace panicked"))??;
        let ns = Self { file: Arc::new(file) };
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// Its path, for `ip link ... netns PATH`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs `f` on a thread in the namespace.
    ///
    /// # Panics
    /// If `f` does, or the namespace cannot be entered.
    pub fn run<T: Send, F: FnOnce() -> T + Send>(&self, f: F) -> T {
        std::thread::scope(|s| {
            let t = s.spawn(|| {
                move_into_thread_name_spaces(self.file.as_fd(), ThreadNameSpaceType::NETWORK).expect("entering a namespace");
                f()
            });
            t.join().unwrap_or_else(|e| std::panic::resume_unwind(e))
        })
    }

    /// A command that will run in the namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut c = Command::new(program);
        let file = self.file.clone();
        // SAFETY: system calls alone, on a file descriptor that is open in the child too. The second ends the child when whoever
        // started it is killed before it could do so; the third unblocks the signals that the demonstration blocks for itself.
        unsafe {
            c.pre_exec(move || {
                move_into_thread_name_spaces(file.as_fd(), ThreadNameSpaceType::NETWORK)?;
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
                let mut none: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&raw mut none);
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
                Ok(())
            });
        }
        c.stdin(Stdio::null());
        c
    }

    /// Runs a command, words separated by blanks, to its end.
    ///
    /// # Errors
    /// It cannot be started, or fails; with what it said.
    pub fn sh(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("no command")?;
        let output = self.command(program).args(words).output().with_context(|| format!("starting {program}"))?;
        finished(line, &output)
    }

    /// `ip` with these words.
    ///
    /// # Errors
    /// As [`Ns::sh`].
    pub fn ip(&self, words: &str) -> Result<String> {
        self.sh(&format!("ip {words}"))
    }

    /// Starts a command that runs until this is dropped.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, command: &mut Command) -> Result<Running> {
        let child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
        Ok(Running { child })
    }

    /// Connects two namespaces by a cable: `name` here, `other_name` there, both up, without offloads.
    ///
    /// # Errors
    /// As [`Ns::sh`].
    pub fn cable(&self, name: &str, other: &Ns, other_name: &str, mtu: u32) -> Result<()> {
        // A queue for each CPU, as a network card has them: else what one CPU forwards waits in a ring until another, which may be busy,
        // gets to it, and is lost when that is full.
        let queues = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
        let queues = format!("numtxqueues {queues} numrxqueues {queues}");
        let peer = format!("{other_name} mtu {mtu} {queues} netns {}", other.path());
        self.ip(&format!("link add name {name} mtu {mtu} {queues} type veth peer name {peer}"))?;
        for (ns, name) in [(self, name), (other, other_name)] {
            // XDP sees frames as they are on a wire: with checksums, and no larger than the MTU.
            ns.sh(&format!("ethtool -K {name} tx off rx off tso off gso off gro off"))?;
            // The ring of a veth with XDP takes 256 packets and drops the next: bursts wait in front of it.
            ns.sh(&format!("tc qdisc add dev {name} root pfifo limit 4096"))?;
            ns.sh(&format!("sysctl -qw net.ipv6.conf.{name}.accept_dad=0 net.ipv4.conf.{name}.rp_filter=0"))?;
            ns.ip(&format!("link set dev {name} up"))?;
        }
        Ok(())
    }
}

/// What a command printed, if it succeeded.
pub(crate) fn finished(line: &str, output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("`{line}`: {}: {}{}", output.status, text, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(text)
}

/// A process that ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub child: Child,
}

impl Running {
    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).context("no process")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Waits for the end, and kills the process if it takes longer than `limit`.
    ///
    /// # Errors
    /// It took longer.
    pub fn wait(&mut self, limit: Duration) -> Result<std::process::ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                self.child.kill()?;
                self.child.wait()?;
                bail!("the process did not end within {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries until `f` succeeds, for `limit` at most.
///
/// # Errors
/// The last one of `f`.
pub fn until<T>(limit: Duration, mut f: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match f() {
            Ok(t) => return Ok(t),
            Err(e) if Instant::now() > end => return Err(e),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

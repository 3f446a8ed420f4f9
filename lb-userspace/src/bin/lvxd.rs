//! The daemon.

fn main() -> std::process::ExitCode {
    lb_userspace::daemon::main()
}

//! The command line tool; see [`lb_userspace::cli`].

fn main() -> std::process::ExitCode {
    // Told by the binary: the library is the same for both ways of linking.
    lb_userspace::cli::main(cfg!(target_feature = "crt-static"))
}

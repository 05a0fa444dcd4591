//! The `stonechat` command.

fn main() -> std::process::ExitCode {
    stonechat::cli::main()
}

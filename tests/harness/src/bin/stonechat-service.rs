//! The `stonechat` command, as the stories run it: it ends when the test that started it is gone.

fn main() -> std::process::ExitCode {
    harness::process::die_with_parent();
    stonechat::cli::main()
}

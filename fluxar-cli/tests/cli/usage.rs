//! The command line itself.

use crate::support::fluxar;

#[test]
fn help_is_there_for_every_command_with_examples_and_exit_codes() {
    let all = fluxar(["--help"]);
    assert_eq!(all.exit, Some(0));
    for word in ["serve", "call", "stream", "pub", "sub", "ping", "decode", "Exit codes:", "130  interrupted"]
    {
        assert!(all.text().contains(word), "{word}");
    }
    for command in ["serve", "call", "stream", "pub", "sub", "ping", "decode"] {
        let help = fluxar([command, "--help"]);
        assert_eq!((help.exit, help.err.as_str()), (Some(0), ""));
        assert!(
            help.text().contains("\nExamples:\n  fluxar ") || help.text().contains("| fluxar"),
            "{command}"
        );
        assert!(!help.text().contains('\u{1b}'), "no colours");
        assert!(help.text().lines().all(|line| line.len() <= 120), "{command}");
    }
}

#[test]
fn the_version_is_printed() {
    fluxar(["--version"]).is(concat!("fluxar ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn mistakes_take_one_line() {
    for (arguments, line) in [
        (&[][..], "no command (see `fluxar --help`)"),
        (&["fly"], "unrecognized subcommand 'fly' (see `fluxar --help`)"),
        (
            &["call", "tcp://127.0.0.1:1"],
            "the following required arguments were not provided: <METHOD> (see `fluxar call --help`)",
        ),
        (
            &["serve"],
            "the following required arguments were not provided: --listen <URL> (see `fluxar serve --help`)",
        ),
        (
            &["serve", "--listen", "tcp://127.0.0.1:0", "--encrypt", "require"],
            "unexpected argument '--encrypt' found (see `fluxar serve --help`)",
        ),
        (
            &["serve", "--listen", "tcp://127.0.0.1:0", "--max-message", "1023"],
            "invalid value '1023' for '--max-message <N>': 1023 is not in 1024..=4294967295 (see `fluxar serve --help`)",
        ),
        (
            &["ping", "tcp://127.0.0.1:1", "-i", "2d"],
            "invalid value '2d' for '--interval <TIME>': units are ms, s, m and h (see `fluxar ping --help`)",
        ),
        (
            &["ping", "tcp://127.0.0.1:1", "-n", "0"],
            "invalid value '0' for '--count <N>': 0 is not in 1..18446744073709551615 (see `fluxar ping --help`)",
        ),
    ] {
        fluxar(arguments).failed(2, line);
    }
}

#[test]
fn bad_addresses_are_usage_errors() {
    for (url, why) in [
        ("http://localhost:1", "unknown scheme; use tcp:// or unix://"),
        ("tcp://localhost", "the port is missing"),
        ("unix://relative", "the path must be absolute, as in unix:///run/app.sock"),
        ("wss://localhost:1", "this transport is not built in yet; use tcp:// or unix://"),
    ] {
        let line = format!("bad address `{url}`: {why}");
        fluxar(["call", url, "m"]).failed(2, &line);
        fluxar(["ping", url]).failed(2, &line);
        fluxar(["serve", "--listen", url]).failed(2, &line);
    }
}

//! A Chromium that is none: it speaks the pipe and fails as it is told.
//!
//! It takes the place of the executable in fault tests. What it does wrong is chosen by
//! arguments, because Chromium's environment is an allow-list:
//!
//! | argument | what it does |
//! |---|---|
//! | `--fake-mode=exit` | writes a reason to stderr and exits with 21 at once |
//! | `--fake-mode=linger` | closes its pipe at once, and exits with 21 two seconds later |
//! | `--fake-mode=silent` | never answers anything |
//! | `--fake-mode=flood` | writes to stderr without end, and answers |
//! | `--fake-mode=stubborn` | does not exit when the pipe closes or on `Browser.close` |
//! | `--fake-mode=wrong` | answers with ids that nobody asked for and text that is no JSON |
//! | `--fake-mode=slow:MS` | waits so many milliseconds before every answer |
//! | `--fake-mode=hang:METHOD` | never answers this command, and answers the others |
//! | `--fake-mode=fail:METHOD` | answers this command with an error |
//! | `--fake-mode=die:METHOD` | kills itself when this command comes |
//! | `--fake-mode=die-after:N` | answers N commands and kills itself at the next one |
//!
//! It may be given several times. What happens to a lease can also be chosen while it runs: a
//! command `Fake.METHOD` does what the mode of that name does (`Fake.exit`, `Fake.die`,
//! `Fake.flood`).

mod browser;
mod mode;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use browser::Browser;
use mode::{Mode, Modes};
use serde_json::Value;

fn main() -> io::Result<()> {
    let modes = Modes::from_args(std::env::args().skip(1));
    if modes.has(&Mode::Exit) {
        exit_with_a_reason();
    }
    if modes.has(&Mode::Linger) {
        // The descriptors are closed by a program that may: taking a number for one is unsafe.
        return Err(Command::new("sh").args(["-c", "exec 3<&- 4>&-; sleep 2; exit 21"]).exec());
    }
    if modes.has(&Mode::Flood) {
        thread::spawn(flood);
    }
    // Opened by name: taking a number for a descriptor would be unsafe code.
    let mut commands = BufReader::new(File::open("/proc/self/fd/3")?);
    let mut answers = OpenOptions::new().write(true).open("/proc/self/fd/4")?;
    let mut browser = Browser::default();
    let mut served = 0;
    let mut command = Vec::new();
    while commands.read_until(0, &mut command)? > 0 {
        command.pop_if(|last| *last == 0);
        let Ok(message) = serde_json::from_slice::<Value>(&command) else { break };
        command.clear();
        let method = message["method"].as_str().unwrap_or_default();
        match method {
            "Fake.exit" => exit_with_a_reason(),
            "Fake.die" => die(),
            "Fake.flood" => drop(thread::spawn(flood)),
            _ => {}
        }
        if modes.has(&Mode::Die(method.to_owned())) || modes.has(&Mode::DieAfter(served)) {
            die();
        }
        served += 1;
        if modes.has(&Mode::Silent) || modes.has(&Mode::Hang(method.to_owned())) {
            continue;
        }
        if let Some(pause) = modes.pause() {
            thread::sleep(pause);
        }
        let out = if modes.has(&Mode::Wrong) {
            vec![r#"{"id":987654321,"result":{}}"#.to_owned(), "this is no JSON".to_owned()]
        } else {
            browser.answer(&message, modes.has(&Mode::Fail(method.to_owned())))
        };
        for message in out {
            answers.write_all(message.as_bytes())?;
            answers.write_all(b"\0")?;
        }
        if method == "Browser.close" && !modes.has(&Mode::Stubborn) {
            return Ok(());
        }
    }
    while modes.has(&Mode::Stubborn) {
        thread::sleep(Duration::from_secs(3600));
    }
    Ok(())
}

fn exit_with_a_reason() -> ! {
    eprintln!("[FATAL:fake] cannot open the display");
    std::process::exit(21);
}

fn die() -> ! {
    eprintln!("[FATAL:fake] told to die");
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::KILL)
        .expect("we may kill ourselves");
    unreachable!("SIGKILL is not survived")
}

fn flood() {
    let mut stderr = io::stderr().lock();
    for line in 0_u64.. {
        if writeln!(stderr, "[ERROR:fake] line {line} of many, {}", "x".repeat(200)).is_err() {
            return;
        }
    }
}

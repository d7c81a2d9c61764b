//! Server and client as processes of their own, each pinned to a core: this program, started again.
//!
//! A child takes its orders from the command line and answers with one line. It ends when its parent closes its
//! standard input, so that nobody is left behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::Error;
use crate::contender::Contender;
use crate::load::{Load, Measured};
use crate::machine::{Cores, pin};

/// The first argument of a child.
pub(crate) const CHILD: &str = "--child";

/// Starts server and client, measures, and stops both.
pub(crate) fn measure(contender: Contender, load: &Load, cores: Cores) -> Result<Measured, Error> {
    let mut server = Running::start(&["serve", contender.name(), &cores.server.to_string()])?;
    let address = server.line()?;
    let load = [
        load.work.to_string(),
        load.payload.to_string(),
        load.warm_up.as_nanos().to_string(),
        load.measure.as_nanos().to_string(),
    ];
    let [work, payload, warm_up, measure] = &load;
    let core = cores.client.to_string();
    let client = ["measure", contender.name(), &core, &address, work, payload, warm_up, measure];
    let answer = Running::start(&client)?.line()?;
    let mut figures = answer.split(' ');
    let mut next = || figures.next().ok_or_else(|| Error::from(format!("a client answered: {answer}")));
    let [per_second, lost, memory] = [next()?.parse()?, next()?.parse()?, next()?.parse()?];
    Ok(Measured { per_second, lost, p50: next()?.parse()?, p99: next()?.parse()?, memory })
}

/// A child that is killed when it is no longer needed.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(arguments: &[&str]) -> Result<Self, Error> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CHILD).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or("a child without standard output")?;
        Ok(Self { child, output: BufReader::new(output) })
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            Err("a child ended without an answer".into())
        } else {
            Ok(line.trim_end().to_owned())
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a child does: `serve NAME CORE`, or `measure NAME CORE ADDRESS WORK PAYLOAD WARM_UP MEASURE`.
pub(crate) fn child(orders: &[String]) -> Result<(), Error> {
    let [role, name, core, rest @ ..] = orders else {
        return Err("a child without orders".into());
    };
    pin(core.parse()?)?;
    end_with_parent();
    let contender = Contender::from_name(name)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match (role.as_str(), rest) {
        ("serve", []) => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            answer(&listener.local_addr()?.to_string())?;
            runtime.block_on(contender.serve(listener))
        }
        ("measure", [address, work, payload, warm_up, measure]) => {
            let nanos = |text: &str| text.parse().map(Duration::from_nanos);
            let load = Load {
                work: work.parse()?,
                payload: payload.parse()?,
                warm_up: nanos(warm_up)?,
                measure: nanos(measure)?,
            };
            let measured = runtime.block_on(contender.measure(address.parse::<SocketAddr>()?, load))?;
            let Measured { per_second, lost, p50, p99, memory } = measured;
            answer(&format!("{per_second} {lost} {memory} {p50} {p99}"))
        }
        _ => Err(format!("a child with orders nobody gives: {orders:?}").into()),
    }
}

fn answer(line: &str) -> Result<(), Error> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// Ends this process when its standard input ends.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0)
    });
}

//! `fluxar`: serve, call and ping peers, and read what goes between them.

mod access;
mod args;
mod call;
mod conformance;
mod connect;
mod decode;
mod describe;
mod failure;
mod notation;
mod opening;
mod payload;
mod ping;
mod publish;
mod serve;
mod stream;
mod subscribe;
mod terminal;

use std::future::Future;
use std::process::ExitCode;

use args::Command;
use failure::Failure;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run() -> Result<(), Failure> {
    match args::parse()? {
        Some(Command::Serve(args)) => {
            block_on(tokio::runtime::Builder::new_multi_thread(), serve::run(&args))
        }
        Some(Command::Call(args)) => {
            // Whatever is wrong with the command line is said before anybody is dialled.
            let call = call::Prepared::new(&args)?;
            block_on(tokio::runtime::Builder::new_current_thread(), call.run())
        }
        Some(Command::Stream(args)) => {
            let stream = stream::Prepared::new(&args)?;
            block_on(tokio::runtime::Builder::new_current_thread(), stream.run())
        }
        Some(Command::Pub(args)) => {
            let publish = publish::Prepared::new(&args)?;
            block_on(tokio::runtime::Builder::new_current_thread(), publish.run())
        }
        Some(Command::Sub(args)) => {
            block_on(tokio::runtime::Builder::new_current_thread(), subscribe::run(&args))
        }
        Some(Command::Ping(args)) => {
            block_on(tokio::runtime::Builder::new_current_thread(), ping::run(&args))
        }
        Some(Command::Decode(args)) => decode::run(&args),
        None => Ok(()),
    }
}

fn block_on(
    mut runtime: tokio::runtime::Builder,
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let runtime = runtime.enable_all().build();
    runtime.map_err(|error| Failure::usage(format_args!("cannot start: {error}")))?.block_on(command)
}

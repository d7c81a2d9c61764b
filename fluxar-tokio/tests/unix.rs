//! The files of Unix sockets: whose they are, and who removes them.
#![cfg(unix)]

use std::path::PathBuf;

use fluxar_tokio::{BindError, Client, Server, TokioListener};

/// A path of its own for each test.
fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("fluxar-{name}-{}.sock", std::process::id()));
    std::fs::remove_file(&path).ok();
    path
}

fn url(path: &std::path::Path) -> String {
    format!("unix://{}", path.display())
}

#[tokio::test]
async fn a_server_removes_its_file_and_not_that_of_its_successor() {
    let path = path("successor");
    let first = Server::bind(url(&path)).build().await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = Server::bind(url(&path)).build().await.unwrap();
    drop(first);
    assert!(path.exists(), "it belongs to the second");
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_was_handed_over_keeps_its_file() {
    let path = path("handed-over");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = Server::on(TokioListener::from(listener)).build().await.unwrap();
    assert_eq!(server.url(), url(&path));
    drop(server);
    assert!(path.exists(), "its supervisor made it");
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn a_stale_file_is_replaced_and_a_live_one_is_not() {
    let path = path("stale");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "as a crashed server leaves it");
    let server = Server::bind(url(&path)).build().await.unwrap();
    assert!(matches!(Server::bind(url(&path)).build().await, Err(BindError::Io(..))));

    server.handle("one", |_| async { Ok(1) });
    tokio::spawn(server.run());
    let client = Client::connect(url(&path)).build().await.unwrap();
    assert_eq!(client.call::<u8>("one", &()).await, Ok(1));
}

#[tokio::test]
async fn what_is_no_socket_is_never_removed() {
    let path = path("file");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::bind(url(&path)).build().await, Err(BindError::Io(..))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}

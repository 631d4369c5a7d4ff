//! What is written where no crate is used.

use std::sync::{Arc, RwLock};
use std::time::Instant;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use tokio::sync::Mutex;
use tower::Service;

use super::{Contestant, Kind};
use crate::endpoint::{Endpoint, LIFE};
use crate::request::{Client, Error, Sink, Tower, authorization, fresh};

/// The request and the service alone.
pub struct Bare;

impl Contestant for Bare {
    type Client = Tower<Sink>;

    const NAME: &'static str = "no layer";
    const KIND: Kind = Kind::Bare;

    async fn client(_: &Arc<Endpoint>) -> Result<Tower<Sink>, Error> {
        Ok(Tower(Sink::new()))
    }
}

/// `RwLock<Option<(String, Instant)>>`: whoever finds no token fetches one.
pub struct ReadWriteLock;

#[derive(Clone)]
pub struct ReadWriteClient(Arc<ReadWriteState>);

struct ReadWriteState {
    endpoint: Arc<Endpoint>,
    token: RwLock<Option<(String, Instant)>>,
}

impl ReadWriteState {
    async fn token(&self) -> Result<String, Error> {
        if let Some((token, end)) = &*self.token.read().expect("not poisoned")
            && Instant::now() < *end
        {
            return Ok(token.clone());
        }
        let token = self.endpoint.token().await?;
        *self.token.write().expect("not poisoned") = Some((token.clone(), Instant::now() + LIFE));
        Ok(token)
    }
}

impl Contestant for ReadWriteLock {
    type Client = ReadWriteClient;

    const NAME: &'static str = "by hand: `RwLock<Option<(String, Instant)>>`";

    async fn client(endpoint: &Arc<Endpoint>) -> Result<ReadWriteClient, Error> {
        Ok(ReadWriteClient(Arc::new(ReadWriteState {
            endpoint: Arc::clone(endpoint),
            token: RwLock::new(None),
        })))
    }
}

impl Client for ReadWriteClient {
    type Sent = HeaderMap;

    async fn request(&mut self) -> Result<HeaderMap, Error> {
        let token = self.0.token().await?;
        send(&token).await
    }

    fn authorization(sent: &HeaderMap) -> Option<&str> {
        authorization(sent)
    }
}

/// An async `Mutex` that is held while the token is fetched.
pub struct HeldMutex;

#[derive(Clone)]
pub struct MutexClient(Arc<MutexState>);

struct MutexState {
    endpoint: Arc<Endpoint>,
    token: Mutex<Option<(String, Instant)>>,
}

impl MutexState {
    async fn token(&self) -> Result<String, Error> {
        let mut held = self.token.lock().await;
        if let Some((token, end)) = &*held
            && Instant::now() < *end
        {
            return Ok(token.clone());
        }
        let token = self.endpoint.token().await?;
        *held = Some((token.clone(), Instant::now() + LIFE));
        Ok(token)
    }
}

impl Contestant for HeldMutex {
    type Client = MutexClient;

    const NAME: &'static str = "by hand: async `Mutex` held across the fetch";

    async fn client(endpoint: &Arc<Endpoint>) -> Result<MutexClient, Error> {
        Ok(MutexClient(Arc::new(MutexState {
            endpoint: Arc::clone(endpoint),
            token: Mutex::new(None),
        })))
    }
}

impl Client for MutexClient {
    type Sent = HeaderMap;

    async fn request(&mut self) -> Result<HeaderMap, Error> {
        let token = self.0.token().await?;
        send(&token).await
    }

    fn authorization(sent: &HeaderMap) -> Option<&str> {
        authorization(sent)
    }
}

async fn send(token: &str) -> Result<HeaderMap, Error> {
    let mut request = fresh();
    let value = HeaderValue::try_from(format!("Bearer {token}"))?;
    request.headers_mut().insert(AUTHORIZATION, value);
    let response = Sink::<Error>::new().call(request).await?;
    Ok(response.into_body())
}

//! Days on which no token request fails.

use std::time::Duration;

use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt};
use tower_oauth::{CachePolicy, ManualClock};
use tower_oauth_stacks::{client, get};

use crate::play::{Outcome, login, play};
use crate::server::{Act, Server, Tls, answer, token};
use crate::{Day, NO_FAILURE, of_group};

pub(crate) fn the_api(servers: &Runtime) -> [Day; 3] {
    let tokens = Server::plain(servers, token(1799));
    let no = answer(
        "401 Unauthorized",
        &[("www-authenticate", "Bearer error=\"invalid_token\"")],
        "",
    );
    let api = Server::plain(servers, no);
    let ports = [tokens.address.port(), api.address.port()];
    let for_ever = play(&ports, |runtime| {
        let service = login(tokens.url("http")).build().unwrap().layer(client());
        runtime.block_on(async {
            let mut last = None;
            for _ in 0..6 {
                let call = service
                    .clone()
                    .oneshot(get(format!("http://{}/accounts", api.address)));
                last = Some(Outcome::of_call(call.await));
            }
            last.unwrap()
        })
    });

    let acts = vec![token(1799), answer("503 Service Unavailable", &[], "")];
    let failing = Server::start(servers, Tls::None, acts);
    let renewal = play(&[failing.address.port()], |runtime| {
        let clock = ManualClock::new();
        let layer = login(failing.url("http")).clock(clock.clone());
        let layer = layer.cache_policy(CachePolicy::new().attempts(1));
        let tokens = layer.build().unwrap().token_cache();
        runtime.block_on(async {
            tokens.token().await.unwrap();
            clock.advance(Duration::from_secs(1600));
            let served = tokens.token().await;
            while tokens.status().last_error.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Outcome::of(served)
        })
    });

    // FC1
    let acts = vec![token(10), Act::Hang, token(1799)];
    let frozen = Server::start(servers, Tls::None, acts);
    let frozen = play(&[frozen.address.port()], |runtime| {
        let clock = ManualClock::new();
        let limit = Duration::from_millis(300);
        let policy = CachePolicy::new().attempts(1).attempt_timeout(limit);
        let layer = login(frozen.url("http")).clock(clock.clone());
        let tokens = layer.cache_policy(policy).build().unwrap().token_cache();
        runtime.block_on(tokens.token()).unwrap();
        clock.advance(Duration::from_millis(8500));
        // Served, and it leaves a renewal behind, whose request is sent and which nobody drives
        // while the process stands still.
        runtime.block_on(async {
            tokens.token().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        });
        std::thread::sleep(limit + Duration::from_millis(1500));
        clock.advance(Duration::from_secs(33));
        Outcome::of(runtime.block_on(tokens.token()))
    });
    of_group(
        NO_FAILURE,
        [
            Day::new(
                "401 for ever",
                "The API refuses every token, however new. Its answer comes back as it is; \
                 renewing stops until the budget is back.",
                for_ever,
            ),
            Day::new(
                "A renewal that fails",
                "The provider is down when a renewal is due, and the token has some minutes left.",
                renewal,
            ),
            Day::new(
                "A process that was frozen",
                "A container is paused, or a Lambda sleeps between two calls, in the middle of a \
                 renewal. Nothing is wrong with the provider.",
                frozen,
            ),
        ],
    )
}

//! Errors as gRPC statuses (feature `tonic`).

use std::sync::Arc;

use tonic::{Code, Status};

use crate::error::{BoxError, Class, Error};

/// Converts an error of [`OAuth`](crate::OAuth) to the status that a gRPC client expects.
///
/// Without it, tonic reports most of our errors as `UNKNOWN`. It is one line above the layer, and
/// boxes nothing:
///
/// ```
/// # use tower_oauth::OAuthLayer;
/// use tower::{ServiceBuilder, util::MapErr};
/// use tower_oauth::{BoxError, OAuth, grpc_status};
///
/// # fn show<Channel>(channel: Channel, oauth: OAuthLayer) {
/// let channel = ServiceBuilder::new()
///     .map_err(grpc_status)
///     .layer(oauth)
///     .service(channel);
/// // let client = GreeterClient::new(channel);
/// # }
///
/// // With a type that a struct can name:
/// type Authorized<Channel> = MapErr<OAuth<Channel>, fn(BoxError) -> tonic::Status>;
///
/// fn authorize<Channel>(channel: Channel, oauth: OAuthLayer) -> Authorized<Channel> {
///     ServiceBuilder::new()
///         .map_err(grpc_status as fn(_) -> _)
///         .layer(oauth)
///         .service(channel)
/// }
/// ```
///
/// | error | status |
/// |---|---|
/// | [`is_transient`](Error::is_transient) | `UNAVAILABLE` |
/// | [`is_rejected`](Error::is_rejected) | `UNAUTHENTICATED` |
/// | [`is_invalid_response`](Error::is_invalid_response) | `INTERNAL` |
/// | [`is_destination`](Error::is_destination) | `FAILED_PRECONDITION` |
/// | the inner service's | what tonic makes of it |
///
/// An answer that is no token, such as a login page, is `INTERNAL`. `UNAVAILABLE` would invite
/// callers to try again, while the page stays until somebody fixes the configuration.
/// `UNAUTHENTICATED` would be wrong too, since nobody has judged the credentials.
///
/// The status's [`source`](std::error::Error::source) is the [`Error`], with its
/// [`retry_after`](Error::retry_after).
///
/// A server should not relay such a status to its own caller: there `UNAUTHENTICATED` means that
/// the caller's token is invalid, and the text names this client's token endpoint.
#[must_use]
pub fn grpc_status(error: BoxError) -> Status {
    match error.downcast::<Error>() {
        Ok(error) => (*error).into(),
        Err(error) => Status::from_error(error),
    }
}

/// See [`grpc_status`].
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        // Other gRPC implementations report the same for call credentials that they cannot get. It
        // is never NOT_FOUND or DEADLINE_EXCEEDED, with which the server of the RPC may answer.
        let code = match error.class() {
            Class::Transient => Code::Unavailable,
            Class::Rejected => Code::Unauthenticated,
            Class::InvalidResponse => Code::Internal,
            Class::Destination => Code::FailedPrecondition,
        };
        let mut status = Self::new(code, error.to_string());
        status.set_source(Arc::new(error));
        status
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as StdError;
    use std::time::Duration;

    use super::*;

    // FU14
    #[test]
    fn what_may_pass_is_unavailable_and_only_a_rejection_is_unauthenticated() {
        for (error, code) in [
            (Error::transient("x"), Code::Unavailable),
            (Error::timed_out("x"), Code::Unavailable),
            (Error::rejected("slow_down", "x"), Code::Unavailable),
            (
                Error::rejected("invalid_client", "x"),
                Code::Unauthenticated,
            ),
            (Error::rejected("invalid_scope", "x"), Code::Unauthenticated),
            (Error::invalid_response("x"), Code::Internal),
            (Error::destination("x", "y"), Code::FailedPrecondition),
        ] {
            let text = error.to_string();
            let status = grpc_status(error.into());
            assert_eq!((status.code(), status.message()), (code, &*text));
        }
    }

    #[test]
    fn the_source_is_our_error() {
        let error = Error::transient("x").with_retry_after(Duration::from_secs(7));
        let status = grpc_status(error.into());
        let source = status.source().expect("a source");
        let error = source.downcast_ref::<Error>().expect("our error");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    }

    #[test]
    fn another_error_is_what_tonic_makes_of_it() {
        let status = grpc_status(Box::new(Status::aborted("x")));
        assert_eq!(status.code(), Code::Aborted);
        assert_eq!(grpc_status("x".into()).code(), Code::Unknown);
    }
}

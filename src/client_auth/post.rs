//! `client_secret_post`, and the bare client id.

use form_urlencoded::Serializer;

use crate::params::form_size;

pub(super) fn apply(form: &mut Serializer<'_, String>, id: &str, secret: Option<&str>) {
    form.append_pair(CLIENT_ID, id);
    if let Some(secret) = secret {
        form.append_pair(CLIENT_SECRET, secret);
    }
}

/// At most how many bytes [`apply`] adds.
pub(super) fn size(id: &str, secret: &str) -> usize {
    form_size(CLIENT_ID, id) + form_size(CLIENT_SECRET, secret)
}

const CLIENT_ID: &str = "client_id";
const CLIENT_SECRET: &str = "client_secret";

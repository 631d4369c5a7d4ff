//! `client_secret_post`, and the bare client id.

use form_urlencoded::Serializer;

pub(super) fn apply(form: &mut Serializer<'_, String>, id: &str, secret: &str) {
    form.append_pair("client_id", id);
    // An empty `client_secret` is refused by servers that would take none.
    if !secret.is_empty() {
        form.append_pair("client_secret", secret);
    }
}

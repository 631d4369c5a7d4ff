//! The error codes that specifications name (rule R24: such a code is shown as it is).

/// Whether a specification names this code as one that a token endpoint may answer with (IANA's
/// registry of OAuth errors, RFC 6749 to RFC 9470). Such a code is no secret, whatever ours is.
pub(crate) fn is_registered(code: &str) -> bool {
    REGISTERED.split(' ').any(|known| known == code)
}

const REGISTERED: &str = "\
    access_denied account_selection_required authorization_pending consent_required expired_token \
    insufficient_scope insufficient_user_authentication interaction_required \
    invalid_authorization_details invalid_client invalid_client_metadata invalid_dpop_proof \
    invalid_grant invalid_redirect_uri invalid_request invalid_request_object invalid_request_uri \
    invalid_scope invalid_software_statement invalid_target invalid_token login_required \
    request_not_supported request_uri_not_supported server_error slow_down \
    temporarily_unavailable too_many_requests unapproved_software_statement unauthorized_client \
    unsupported_grant_type unsupported_pop_key unsupported_response_type unsupported_token_type \
    use_dpop_nonce";

#[cfg(test)]
mod tests {
    use super::*;

    // R24
    #[test]
    fn a_code_of_a_vendor_is_not_registered() {
        assert!(is_registered("invalid_client") && is_registered("use_dpop_nonce"));
        for code in ["of_its_own", "", "client", "access_denied account"] {
            assert!(!is_registered(code), "{code}");
        }
    }
}

"""What librdkafka may be told about reaching a broker, besides what `KafkaSettings` has.

From its CONFIGURATION.md, with underscores for dots.
"""

from __future__ import annotations

__all__ = ["CONNECTION_PROPERTIES"]

CONNECTION_PROPERTIES = frozenset(
    [
        "broker_address_family",
        "broker_address_ttl",
        "client_dns_lookup",
        "client_rack",
        "connections_max_idle_ms",
        "debug",
        "enable_ssl_certificate_verification",
        "enable_sasl_oauthbearer_unsecure_jwt",
        "https_ca_location",
        "https_ca_pem",
        "log_connection_close",
        "metadata_max_age_ms",
        "metadata_recovery_strategy",
        "reconnect_backoff_max_ms",
        "reconnect_backoff_ms",
        "sasl_kerberos_keytab",
        "sasl_kerberos_kinit_cmd",
        "sasl_kerberos_min_time_before_relogin",
        "sasl_kerberos_principal",
        "sasl_kerberos_service_name",
        "sasl_oauthbearer_assertion_algorithm",
        "sasl_oauthbearer_assertion_file",
        "sasl_oauthbearer_assertion_private_key_file",
        "sasl_oauthbearer_client_id",
        "sasl_oauthbearer_client_secret",
        "sasl_oauthbearer_config",
        "sasl_oauthbearer_extensions",
        "sasl_oauthbearer_grant_type",
        "sasl_oauthbearer_method",
        "sasl_oauthbearer_scope",
        "sasl_oauthbearer_token_endpoint_url",
        "socket_connection_setup_timeout_ms",
        "socket_keepalive_enable",
        "socket_max_fails",
        "socket_nagle_disable",
        "socket_receive_buffer_bytes",
        "socket_send_buffer_bytes",
        "socket_timeout_ms",
        "ssl_ca_certificate_stores",
        "ssl_ca_pem",
        "ssl_certificate_pem",
        "ssl_cipher_suites",
        "ssl_crl_location",
        "ssl_curves_list",
        "ssl_engine_id",
        "ssl_engine_location",
        "ssl_key_pem",
        "ssl_keystore_location",
        "ssl_keystore_password",
        "ssl_providers",
        "ssl_sigalgs_list",
    ]
)

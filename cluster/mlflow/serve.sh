#!/bin/sh
# Starts MLflow with secrets from files: none is in an argument, where `ps` would show it, nor in a URI, where logs would.
#
# $SECRETS holds: mlflow_admin_password, mlflow_secret_key, pgpass (HOST:PORT:DATABASE:USER:PASSWORD), aws_credentials.
set -eu
secrets=${SECRETS:-/run/secrets}
for name in mlflow_admin_password mlflow_secret_key pgpass aws_credentials; do
    [ -s "$secrets/$name" ] || { echo "error: $secrets/$name is missing or empty" >&2; exit 2; }
done

# libpq takes a password file from its owner alone, which a mounted secret is not.
umask 077
home=$(mktemp -d)
cp "$secrets/pgpass" "$home/pgpass"
cp "$secrets/aws_credentials" "$home/aws_credentials"
PGPASSFILE=$home/pgpass
AWS_SHARED_CREDENTIALS_FILE=$home/aws_credentials
MLFLOW_AUTH_ADMIN_PASSWORD=$(cat "$secrets/mlflow_admin_password")
MLFLOW_FLASK_SERVER_SECRET_KEY=$(cat "$secrets/mlflow_secret_key")
MLFLOW_AUTH_CONFIG_PATH=$home/auth.ini
export PGPASSFILE AWS_SHARED_CREDENTIALS_FILE MLFLOW_AUTH_ADMIN_PASSWORD
export MLFLOW_FLASK_SERVER_SECRET_KEY MLFLOW_AUTH_CONFIG_PATH

database=postgresql+psycopg://mlflow@${POSTGRES_HOST:-postgres}/mlflow
cat >"$MLFLOW_AUTH_CONFIG_PATH" <<INI
[mlflow]
default_permission = READ
database_uri = $database
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI

# TLS: MLFLOW_TLS_CERT and MLFLOW_TLS_KEY name files; without them, keep to the loopback or stand behind a proxy with TLS.
tls=
[ -z "${MLFLOW_TLS_CERT:-}" ] || tls="--ssl-certfile=$MLFLOW_TLS_CERT --ssl-keyfile=$MLFLOW_TLS_KEY"

exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 \
    --backend-store-uri "$database" --artifacts-destination "${ARTIFACTS:-s3://mlflow}" \
    --allowed-hosts "${ALLOWED_HOSTS:-localhost:5000,127.0.0.1:5000,mlflow:5000}" \
    --cors-allowed-origins "${ALLOWED_ORIGINS:-http://localhost:5000}" \
    ${tls:+--uvicorn-opts "$tls"}

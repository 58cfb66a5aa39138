#!/bin/sh
# Makes the random secrets of compose.yaml and of kuberay/, once: what is there already stays.
#
# Start:  cluster/mlflow/make_secrets.sh [FOLDER]      (default: secrets, beside this file)
# The folder is for its owner alone. Its files can be read by all that get that far: compose mounts them as they are,
# and each container runs as a user of its own.
set -eu
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
keep() { [ -s "$folder/$1" ] || cat >"$folder/$1"; }

for name in postgres_password s3_password redis_password mlflow_admin_password mlflow_secret_key ray_auth_token; do
    random | keep "$name"
done
printf 'fer-sweeps' | keep s3_user
printf '*:5432:mlflow:mlflow:%s\n' "$(cat "$folder/postgres_password")" | keep pgpass
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' \
    "$(cat "$folder/s3_user")" "$(cat "$folder/s3_password")" | keep aws_credentials
printf '[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = %s\n' \
    "$(cat "$folder/mlflow_admin_password")" | keep mlflow_login
chmod 444 "$folder"/*
# -f: a file of an earlier run has mode 444 here.
cp -f "$folder/ray_auth_token" "$folder/ray_auth_token.mine"
chmod 600 "$folder/ray_auth_token.mine"
echo "secrets are in $folder"

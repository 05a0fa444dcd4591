#!/bin/sh
# The entry point of the image.
#
#     run            runs Stonechat; at the first start it writes the configuration instead, says the
#                    next step, and ends
#     setup          writes the configuration if there is none, and ends
#     anything else  is a command of Stonechat: doctor, status, backup …
#
# The first start reads:
#
#     STONECHAT_SERVER_NAME  the part of the users' ids after the colon; must be given
#     STONECHAT_HOMESERVER   where Stonechat reaches Synapse; must be given
#     STONECHAT_URL          where Synapse reaches Stonechat; http://stonechat:29331
#     STONECHAT_LISTEN       the address to listen on; 0.0.0.0:29331
#     STONECHAT_SHARED       a folder for what Synapse reads, if it is not the one of the configuration
set -eu

config=${STONECHAT_CONFIG:-/data/stonechat.yaml}
folder=$(dirname "$config")
shared=${STONECHAT_SHARED:-$folder}

# Ends with words that say what to do.
refuse() {
    echo "stonechat: $*" >&2
    exit 1
}

setup() {
    if [ -z "${STONECHAT_SERVER_NAME:-}" ] || [ -z "${STONECHAT_HOMESERVER:-}" ]; then
        refuse "$config does not exist. To write it, start the container once with" \
            "STONECHAT_SERVER_NAME (the part of your users' ids after the colon) and" \
            "STONECHAT_HOMESERVER (the URL at which Synapse answers in this network)"
    fi
    for place in "$folder" "$shared"; do
        [ -w "$place" ] || refuse "$place cannot be written by the user $(id -u):" \
            "mount a volume there, or a folder that belongs to that user"
    done
    umask 077
    registration=$shared/registration.yaml
    token=$shared/module.token
    # Written under another name first: a first start that was cut short is done again.
    draft=$folder/first-start.yaml
    stonechat --config "$draft" init --force \
        --homeserver "$STONECHAT_HOMESERVER" --server-name "$STONECHAT_SERVER_NAME" \
        --listen "${STONECHAT_LISTEN:-0.0.0.0:29331}" \
        --url "${STONECHAT_URL:-http://stonechat:29331}" \
        --registration "$registration" --data "$folder/data" >/dev/null
    sed -i "s|^  token_file: .*|  token_file: $token|" "$draft"
    stonechat --config "$draft" registration --with-module >/dev/null
    # The module's lines are beside its token. The group of this container's user is Synapse's, or
    # has nobody else in it.
    chmod 640 "$registration" "$token" "$shared/homeserver-module.yaml"
    mv "$draft" "$config"
    cat <<EOT
Stonechat's configuration is written: $config, with every option.

The next step is to give Synapse, in homeserver.yaml, the registration $registration
and the module's lines in $shared/homeserver-module.yaml. This prints all lines that it needs:

    stonechat registration --with-module

The module itself is in this image, in /usr/share/stonechat/synapse. Keep a copy of
$folder/store.key in another place: without it the database and its backups cannot be read.
Then restart Synapse, and start this container again.
EOT
}

case ${1:-run} in
setup)
    if [ -e "$config" ]; then
        echo "Stonechat is set up: $config"
    else
        setup
    fi
    ;;
run)
    if [ ! -e "$config" ]; then
        setup
        exit
    fi
    exec stonechat "$@"
    ;;
*)
    exec stonechat "$@"
    ;;
esac

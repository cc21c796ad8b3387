# Certificates of this project's cluster, made once, and the variables by which Dask finds them.
# In the project's folder: . docs/cluster/tls.sh
clipad_tls="$PWD/.cache/cluster"
mkdir -p "$clipad_tls"
chmod 700 "$clipad_tls" # who reads the key can run code on the cluster
if [ ! -f "$clipad_tls/cert.pem" ]; then
    openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=clipad \
        -keyout "$clipad_tls/key.pem" -out "$clipad_tls/cert.draft" 2>/dev/null
    mv "$clipad_tls/cert.draft" "$clipad_tls/cert.pem"
fi
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$clipad_tls/cert.pem"
for clipad_side in SCHEDULER WORKER CLIENT; do
    export "DASK_DISTRIBUTED__COMM__TLS__${clipad_side}__CERT=$clipad_tls/cert.pem"
    export "DASK_DISTRIBUTED__COMM__TLS__${clipad_side}__KEY=$clipad_tls/key.pem"
done
unset clipad_tls clipad_side

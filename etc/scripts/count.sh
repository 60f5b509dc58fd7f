#!/bin/sh
# Counts to 60, a line a second; `count.sh 3` counts to 3.
i=0
while [ "$i" -lt "${1:-60}" ]; do
    i=$((i + 1))
    echo "line $i"
    sleep 1
done

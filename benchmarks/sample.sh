#!/bin/sh
# The sample report, results/sample: a comparison of all methods, its outcome, page and charts.
#
#   benchmarks/sample.sh            measures anew, some ten minutes; leave the machine alone meanwhile
#   benchmarks/sample.sh FOLDER     takes a comparison that has been made
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
sample=$here/results/sample
if [ $# -eq 0 ]; then
    results=$(mktemp -d)
    trap 'rm -rf "$results"' EXIT
    "$here/bin/xlab" compare bridge ovs-gre ovs-gre:routes=underlay weave weave:datapath=fastdp \
        --quick --repeat 6 --probe rr --probe loaded-rtt --probe message-sizes --probe flows \
        --probe recovery --results "$results"
    set -- "$results"/*-compare
fi
rm -rf "$sample"
mkdir -p "$sample"
"$here/bin/xlab" report "$1" --alone --charts "$sample/charts" --output "$sample/report.html"
# The page has them all; beside it stand those that the README shows.
for chart in "$sample"/charts/*; do
    grep -q "results/sample/charts/${chart##*/}" "$here/README.md" || rm "$chart"
done
cp "$1/compare.json" "$sample/"
du -sh "$sample"

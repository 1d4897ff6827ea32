#!/bin/sh
# The sample reports, results/sample: all methods compared by the real clock, and below virtual/ by
# the other, beside it; their outcomes, pages and charts.
#
#   benchmarks/sample.sh                  measures anew, some 14 minutes; leave the machine alone
#   benchmarks/sample.sh FOLDER VIRTUAL   takes two comparisons that have been made
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
sample=$here/results/sample
if [ $# -eq 0 ]; then
    results=$(mktemp -d)
    trap 'rm -rf "$results" "${made:-$results}"' EXIT
    "$here/bin/xlab" compare bridge ovs-gre ovs-gre:routes=underlay weave weave:datapath=fastdp \
        --quick --repeat 6 --probe rr --probe loaded-rtt --probe message-sizes --probe flows \
        --probe recovery --results "$results/real"
    "$here/bin/xlab" compare --quick --clock virtual --results "$results/virtual"
    set -- "$results"/real/*-compare "$results"/virtual/*-compare
fi
# As deep as it will stand, so that links hold.
made=$(mktemp -d "$here/results/.sample.XXXXXX")
mkdir -p "$made/virtual"
cp "$1/compare.json" "$made/"
cp "$2/compare.json" "$made/virtual/"
"$here/bin/xlab" report "$2" --beside "$1" --alone --charts "$made/charts" \
    --output "$made/virtual/report.html"
"$here/bin/xlab" report "$1" --alone --charts "$made/charts" --output "$made/report.html"
# The pages have them all; beside them stand those that the README shows.
for chart in "$made"/charts/*; do
    grep -q "results/sample/charts/${chart##*/}" "$here/README.md" || rm "$chart"
done
rm -rf "$sample"
chmod 755 "$made"
mv "$made" "$sample"
du -sh "$sample"

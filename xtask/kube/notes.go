package main

import (
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
)

// notes renders a chart as an installation would, without a cluster, and returns its notes. The last file of values wins.
func notes(release, namespace, path string, files []string) (string, error) {
	chart, err := loader.Load(path)
	if err != nil {
		return "", err
	}
	values := map[string]any{}
	for _, file := range files {
		given, err := chartutil.ReadValuesFile(file)
		if err != nil {
			return "", err
		}
		values = chartutil.MergeTables(given.AsMap(), values)
	}
	install := action.NewInstall(&action.Configuration{Log: func(string, ...any) {}})
	install.ClientOnly, install.DryRun = true, true
	install.ReleaseName, install.Namespace = release, namespace
	install.KubeVersion = &chartutil.KubeVersion{Version: "v1.34.0", Major: "1", Minor: "34"}
	installed, err := install.Run(chart, values)
	if err != nil {
		return "", err
	}
	return installed.Info.Notes, nil
}

// Command lws runs LeaderWorkerSet's controllers and webhooks: no leader election, no metrics, a
// certificate that it is given. It is what tests run; its caller stops it by a signal.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"

	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	leaderworkerset "sigs.k8s.io/lws/api/leaderworkerset/v1"
	"sigs.k8s.io/lws/pkg/controllers"
	"sigs.k8s.io/lws/pkg/webhooks"
)

const module = "sigs.k8s.io/lws"

func main() {
	folder := flag.String("certificates", "", "the folder with tls.crt and tls.key of the webhooks")
	port := flag.Int("port", 0, "where the webhooks listen, on loopback")
	version := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *version {
		fmt.Println(pinned())
		return
	}
	ctrl.SetLogger(zap.New())
	if err := run(*folder, *port); err != nil {
		fmt.Fprintln(os.Stderr, "lws:", err)
		os.Exit(1)
	}
}

func run(folder string, port int) error {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(leaderworkerset.AddToScheme(scheme))
	manager, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{
		Scheme:                 scheme,
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
		WebhookServer: webhook.NewServer(webhook.Options{
			Host: "127.0.0.1", Port: port, CertDir: folder,
		}),
	})
	if err != nil {
		return err
	}
	if err := controllers.SetupIndexes(manager.GetFieldIndexer()); err != nil {
		return err
	}
	events := manager.GetEventRecorderFor("leaderworkerset")
	sets := controllers.NewLeaderWorkerSetReconciler(manager.GetClient(), scheme, events)
	if err := sets.SetupWithManager(manager); err != nil {
		return err
	}
	pods := controllers.NewPodReconciler(manager.GetClient(), scheme, events, nil)
	if err := pods.SetupWithManager(manager); err != nil {
		return err
	}
	if err := webhooks.SetupLeaderWorkerSetWebhook(manager); err != nil {
		return err
	}
	podHook := webhooks.NewPodWebhook(nil)
	if err := podHook.Setup(manager); err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}

// pinned is the version of LeaderWorkerSet that this was built with.
func pinned() string {
	info, _ := debug.ReadBuildInfo()
	for _, each := range info.Deps {
		if each.Path == module {
			return each.Version
		}
	}
	return "unknown"
}

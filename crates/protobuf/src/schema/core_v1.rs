//! `v1`.

use super::{
    Message,
    machinery::{IntOrString, MicroTime, Quantity, Time},
    meta_v1::{Condition, LabelSelector, ListMeta, ObjectMeta},
};

pub(super) const KINDS: &[&Message] = &[
    &Binding,
    &ConfigMap,
    &ConfigMapList,
    &Endpoints,
    &EndpointsList,
    &Event,
    &EventList,
    &LimitRange,
    &LimitRangeList,
    &Namespace,
    &NamespaceList,
    &Node,
    &NodeList,
    &PersistentVolume,
    &PersistentVolumeClaim,
    &PersistentVolumeClaimList,
    &PersistentVolumeList,
    &Pod,
    &PodList,
    &PodTemplate,
    &PodTemplateList,
    &ReplicationController,
    &ReplicationControllerList,
    &ResourceQuota,
    &ResourceQuotaList,
    &Secret,
    &SecretList,
    &Service,
    &ServiceAccount,
    &ServiceAccountList,
    &ServiceList,
];

messages! {
    AWSElasticBlockStoreVolumeSource {
        1 opt "volumeID" string,
        2 "fsType" string,
        3 "partition" int32,
        4 "readOnly" bool,
    }
    Affinity {
        1 "nodeAffinity" NodeAffinity,
        2 "podAffinity" PodAffinity,
        3 "podAntiAffinity" PodAntiAffinity,
    }
    AppArmorProfile {
        1 opt "type" string,
        2 opt "localhostProfile" string,
    }
    AttachedVolume {
        1 opt "name" string,
        2 opt "devicePath" string,
    }
    AzureDiskVolumeSource {
        1 opt "diskName" string,
        2 opt "diskURI" string,
        3 opt "cachingMode" string,
        4 opt "fsType" string,
        5 opt "readOnly" bool,
        6 opt "kind" string,
    }
    AzureFilePersistentVolumeSource {
        1 opt "secretName" string,
        2 opt "shareName" string,
        3 "readOnly" bool,
        4 opt "secretNamespace" string,
    }
    AzureFileVolumeSource {
        1 opt "secretName" string,
        2 opt "shareName" string,
        3 "readOnly" bool,
    }
    Binding {
        1 "metadata" ObjectMeta,
        2 "target" ObjectReference,
    }
    CSIPersistentVolumeSource {
        1 opt "driver" string,
        2 opt "volumeHandle" string,
        3 "readOnly" bool,
        4 "fsType" string,
        5 "volumeAttributes" {string},
        6 "controllerPublishSecretRef" SecretReference,
        7 "nodeStageSecretRef" SecretReference,
        8 "nodePublishSecretRef" SecretReference,
        9 "controllerExpandSecretRef" SecretReference,
        10 "nodeExpandSecretRef" SecretReference,
    }
    CSIVolumeSource {
        1 opt "driver" string,
        2 opt "readOnly" bool,
        3 opt "fsType" string,
        4 "volumeAttributes" {string},
        5 "nodePublishSecretRef" LocalObjectReference,
    }
    Capabilities {
        1 "add" [string],
        2 "drop" [string],
    }
    CephFSPersistentVolumeSource {
        1 "monitors" [string],
        2 "path" string,
        3 "user" string,
        4 "secretFile" string,
        5 "secretRef" SecretReference,
        6 "readOnly" bool,
    }
    CephFSVolumeSource {
        1 "monitors" [string],
        2 "path" string,
        3 "user" string,
        4 "secretFile" string,
        5 "secretRef" LocalObjectReference,
        6 "readOnly" bool,
    }
    CinderPersistentVolumeSource {
        1 opt "volumeID" string,
        2 "fsType" string,
        3 "readOnly" bool,
        4 "secretRef" SecretReference,
    }
    CinderVolumeSource {
        1 opt "volumeID" string,
        2 "fsType" string,
        3 "readOnly" bool,
        4 "secretRef" LocalObjectReference,
    }
    ClientIPConfig { 1 opt "timeoutSeconds" int32 }
    ClusterTrustBundleProjection {
        1 opt "name" string,
        2 opt "signerName" string,
        3 "labelSelector" LabelSelector,
        4 opt "path" string,
        5 opt "optional" bool,
    }
    ConfigMap {
        1 "metadata" ObjectMeta,
        2 "data" {string},
        3 "binaryData" {bytes},
        4 opt "immutable" bool,
    }
    ConfigMapEnvSource {
        1 "" LocalObjectReference,
        2 opt "optional" bool,
    }
    ConfigMapKeySelector {
        1 "" LocalObjectReference,
        2 opt "key" string,
        3 opt "optional" bool,
    }
    ConfigMapList {
        1 "metadata" ListMeta,
        2 "items" [ConfigMap],
    }
    ConfigMapNodeConfigSource {
        1 opt "namespace" string,
        2 opt "name" string,
        3 "uid" string,
        4 "resourceVersion" string,
        5 opt "kubeletConfigKey" string,
    }
    ConfigMapProjection {
        1 "" LocalObjectReference,
        2 "items" [KeyToPath],
        4 opt "optional" bool,
    }
    ConfigMapVolumeSource {
        1 "" LocalObjectReference,
        2 "items" [KeyToPath],
        3 opt "defaultMode" int32,
        4 opt "optional" bool,
    }
    Container {
        1 opt "name" string,
        2 "image" string,
        3 "command" [string],
        4 "args" [string],
        5 "workingDir" string,
        6 "ports" [ContainerPort],
        7 "env" [EnvVar],
        8 "resources" ResourceRequirements,
        9 "volumeMounts" [VolumeMount],
        10 "livenessProbe" Probe,
        11 "readinessProbe" Probe,
        12 "lifecycle" Lifecycle,
        13 "terminationMessagePath" string,
        14 "imagePullPolicy" string,
        15 "securityContext" SecurityContext,
        16 "stdin" bool,
        17 "stdinOnce" bool,
        18 "tty" bool,
        19 "envFrom" [EnvFromSource],
        20 "terminationMessagePolicy" string,
        21 "volumeDevices" [VolumeDevice],
        22 "startupProbe" Probe,
        23 "resizePolicy" [ContainerResizePolicy],
        24 opt "restartPolicy" string,
        25 "restartPolicyRules" [ContainerRestartRule],
    }
    ContainerExtendedResourceRequest {
        1 opt "containerName" string,
        2 opt "resourceName" string,
        3 opt "requestName" string,
    }
    ContainerImage {
        1 "names" [string],
        2 "sizeBytes" int64,
    }
    ContainerPort {
        1 "name" string,
        2 "hostPort" int32,
        3 opt "containerPort" int32,
        4 "protocol" string,
        5 "hostIP" string,
    }
    ContainerResizePolicy {
        1 opt "resourceName" string,
        2 opt "restartPolicy" string,
    }
    ContainerRestartRule {
        1 "action" string,
        2 "exitCodes" ContainerRestartRuleOnExitCodes,
    }
    ContainerRestartRuleOnExitCodes {
        1 "operator" string,
        2 "values" [int32],
    }
    ContainerState {
        1 "waiting" ContainerStateWaiting,
        2 "running" ContainerStateRunning,
        3 "terminated" ContainerStateTerminated,
    }
    ContainerStateRunning { 1 "startedAt" Time }
    ContainerStateTerminated {
        1 opt "exitCode" int32,
        2 "signal" int32,
        3 "reason" string,
        4 "message" string,
        5 "startedAt" Time,
        6 "finishedAt" Time,
        7 "containerID" string,
    }
    ContainerStateWaiting {
        1 "reason" string,
        2 "message" string,
    }
    ContainerStatus {
        1 opt "name" string,
        2 "state" ContainerState,
        3 "lastState" ContainerState,
        4 opt "ready" bool,
        5 opt "restartCount" int32,
        6 opt "image" string,
        7 opt "imageID" string,
        8 "containerID" string,
        9 opt "started" bool,
        10 "allocatedResources" {Quantity},
        11 "resources" ResourceRequirements,
        12 "volumeMounts" [VolumeMountStatus],
        13 "user" ContainerUser,
        14 "allocatedResourcesStatus" [ResourceStatus],
        15 opt "stopSignal" string,
    }
    ContainerUser { 1 "linux" LinuxContainerUser }
    DaemonEndpoint { 1 opt "Port" int32 }
    DownwardAPIProjection { 1 "items" [DownwardAPIVolumeFile] }
    DownwardAPIVolumeFile {
        1 opt "path" string,
        2 "fieldRef" ObjectFieldSelector,
        3 "resourceFieldRef" ResourceFieldSelector,
        4 opt "mode" int32,
    }
    DownwardAPIVolumeSource {
        1 "items" [DownwardAPIVolumeFile],
        2 opt "defaultMode" int32,
    }
    EmptyDirVolumeSource {
        1 "medium" string,
        2 "sizeLimit" Quantity,
    }
    EndpointAddress {
        1 opt "ip" string,
        2 "targetRef" ObjectReference,
        3 "hostname" string,
        4 opt "nodeName" string,
    }
    EndpointPort {
        1 "name" string,
        2 opt "port" int32,
        3 "protocol" string,
        4 opt "appProtocol" string,
    }
    EndpointSubset {
        1 "addresses" [EndpointAddress],
        2 "notReadyAddresses" [EndpointAddress],
        3 "ports" [EndpointPort],
    }
    Endpoints {
        1 "metadata" ObjectMeta,
        2 "subsets" [EndpointSubset],
    }
    EndpointsList {
        1 "metadata" ListMeta,
        2 "items" [Endpoints],
    }
    EnvFromSource {
        1 "prefix" string,
        2 "configMapRef" ConfigMapEnvSource,
        3 "secretRef" SecretEnvSource,
    }
    EnvVar {
        1 opt "name" string,
        2 "value" string,
        3 "valueFrom" EnvVarSource,
    }
    EnvVarSource {
        1 "fieldRef" ObjectFieldSelector,
        2 "resourceFieldRef" ResourceFieldSelector,
        3 "configMapKeyRef" ConfigMapKeySelector,
        4 "secretKeyRef" SecretKeySelector,
        5 "fileKeyRef" FileKeySelector,
    }
    EphemeralContainer {
        1 "" EphemeralContainerCommon,
        2 "targetContainerName" string,
    }
    EphemeralContainerCommon {
        1 opt "name" string,
        2 "image" string,
        3 "command" [string],
        4 "args" [string],
        5 "workingDir" string,
        6 "ports" [ContainerPort],
        7 "env" [EnvVar],
        8 "resources" ResourceRequirements,
        9 "volumeMounts" [VolumeMount],
        10 "livenessProbe" Probe,
        11 "readinessProbe" Probe,
        12 "lifecycle" Lifecycle,
        13 "terminationMessagePath" string,
        14 "imagePullPolicy" string,
        15 "securityContext" SecurityContext,
        16 "stdin" bool,
        17 "stdinOnce" bool,
        18 "tty" bool,
        19 "envFrom" [EnvFromSource],
        20 "terminationMessagePolicy" string,
        21 "volumeDevices" [VolumeDevice],
        22 "startupProbe" Probe,
        23 "resizePolicy" [ContainerResizePolicy],
        24 opt "restartPolicy" string,
        25 "restartPolicyRules" [ContainerRestartRule],
    }
    EphemeralVolumeSource { 1 "volumeClaimTemplate" PersistentVolumeClaimTemplate }
    Event {
        1 "metadata" ObjectMeta,
        2 "involvedObject" ObjectReference,
        3 "reason" string,
        4 "message" string,
        5 "source" EventSource,
        6 "firstTimestamp" Time,
        7 "lastTimestamp" Time,
        8 "count" int32,
        9 "type" string,
        10 "eventTime" MicroTime,
        11 "series" EventSeries,
        12 "action" string,
        13 "related" ObjectReference,
        14 opt "reportingComponent" string,
        15 opt "reportingInstance" string,
    }
    EventList {
        1 "metadata" ListMeta,
        2 "items" [Event],
    }
    EventSeries {
        1 "count" int32,
        2 "lastObservedTime" MicroTime,
    }
    EventSource {
        1 "component" string,
        2 "host" string,
    }
    ExecAction { 1 "command" [string] }
    FCVolumeSource {
        1 "targetWWNs" [string],
        2 opt "lun" int32,
        3 "fsType" string,
        4 "readOnly" bool,
        5 "wwids" [string],
    }
    FileKeySelector {
        1 opt "volumeName" string,
        2 opt "path" string,
        3 opt "key" string,
        4 opt "optional" bool,
    }
    FlexPersistentVolumeSource {
        1 opt "driver" string,
        2 "fsType" string,
        3 "secretRef" SecretReference,
        4 "readOnly" bool,
        5 "options" {string},
    }
    FlexVolumeSource {
        1 opt "driver" string,
        2 "fsType" string,
        3 "secretRef" LocalObjectReference,
        4 "readOnly" bool,
        5 "options" {string},
    }
    FlockerVolumeSource {
        1 "datasetName" string,
        2 "datasetUUID" string,
    }
    GCEPersistentDiskVolumeSource {
        1 opt "pdName" string,
        2 "fsType" string,
        3 "partition" int32,
        4 "readOnly" bool,
    }
    GRPCAction {
        1 opt "port" int32,
        2 opt "service" string,
    }
    GitRepoVolumeSource {
        1 opt "repository" string,
        2 "revision" string,
        3 "directory" string,
    }
    GlusterfsPersistentVolumeSource {
        1 opt "endpoints" string,
        2 opt "path" string,
        3 "readOnly" bool,
        4 opt "endpointsNamespace" string,
    }
    GlusterfsVolumeSource {
        1 opt "endpoints" string,
        2 opt "path" string,
        3 "readOnly" bool,
    }
    HTTPGetAction {
        1 "path" string,
        2 "port" IntOrString,
        3 "host" string,
        4 "scheme" string,
        5 "httpHeaders" [HTTPHeader],
    }
    HTTPHeader {
        1 opt "name" string,
        2 opt "value" string,
    }
    HostAlias {
        1 opt "ip" string,
        2 "hostnames" [string],
    }
    HostIP { 1 opt "ip" string }
    HostPathVolumeSource {
        1 opt "path" string,
        2 opt "type" string,
    }
    ISCSIPersistentVolumeSource {
        1 opt "targetPortal" string,
        2 opt "iqn" string,
        3 opt "lun" int32,
        4 "iscsiInterface" string,
        5 "fsType" string,
        6 "readOnly" bool,
        7 "portals" [string],
        8 "chapAuthDiscovery" bool,
        10 "secretRef" SecretReference,
        11 "chapAuthSession" bool,
        12 opt "initiatorName" string,
    }
    ISCSIVolumeSource {
        1 opt "targetPortal" string,
        2 opt "iqn" string,
        3 opt "lun" int32,
        4 "iscsiInterface" string,
        5 "fsType" string,
        6 "readOnly" bool,
        7 "portals" [string],
        8 "chapAuthDiscovery" bool,
        10 "secretRef" LocalObjectReference,
        11 "chapAuthSession" bool,
        12 opt "initiatorName" string,
    }
    ImageVolumeSource {
        1 "reference" string,
        2 "pullPolicy" string,
    }
    ImageVolumeStatus { 1 "imageRef" string }
    KeyToPath {
        1 opt "key" string,
        2 opt "path" string,
        3 opt "mode" int32,
    }
    Lifecycle {
        1 "postStart" LifecycleHandler,
        2 "preStop" LifecycleHandler,
        3 opt "stopSignal" string,
    }
    LifecycleHandler {
        1 "exec" ExecAction,
        2 "httpGet" HTTPGetAction,
        3 "tcpSocket" TCPSocketAction,
        4 "sleep" SleepAction,
    }
    LimitRange {
        1 "metadata" ObjectMeta,
        2 "spec" LimitRangeSpec,
    }
    LimitRangeItem {
        1 opt "type" string,
        2 "max" {Quantity},
        3 "min" {Quantity},
        4 "default" {Quantity},
        5 "defaultRequest" {Quantity},
        6 "maxLimitRequestRatio" {Quantity},
    }
    LimitRangeList {
        1 "metadata" ListMeta,
        2 "items" [LimitRange],
    }
    LimitRangeSpec { 1 "limits" [LimitRangeItem] }
    LinuxContainerUser {
        1 opt "uid" int64,
        2 opt "gid" int64,
        3 "supplementalGroups" [int64],
    }
    LoadBalancerIngress {
        1 "ip" string,
        2 "hostname" string,
        3 opt "ipMode" string,
        4 "ports" [PortStatus],
    }
    LoadBalancerStatus { 1 "ingress" [LoadBalancerIngress] }
    LocalObjectReference { 1 "name" string }
    LocalVolumeSource {
        1 opt "path" string,
        2 opt "fsType" string,
    }
    ModifyVolumeStatus {
        1 "targetVolumeAttributesClassName" string,
        2 opt "status" string,
    }
    NFSVolumeSource {
        1 opt "server" string,
        2 opt "path" string,
        3 "readOnly" bool,
    }
    Namespace {
        1 "metadata" ObjectMeta,
        2 "spec" NamespaceSpec,
        3 "status" NamespaceStatus,
    }
    NamespaceCondition {
        1 opt "type" string,
        2 opt "status" string,
        4 "lastTransitionTime" Time,
        5 "reason" string,
        6 "message" string,
    }
    NamespaceList {
        1 "metadata" ListMeta,
        2 "items" [Namespace],
    }
    NamespaceSpec { 1 "finalizers" [string] }
    NamespaceStatus {
        1 "phase" string,
        2 "conditions" [NamespaceCondition],
    }
    Node {
        1 "metadata" ObjectMeta,
        2 "spec" NodeSpec,
        3 "status" NodeStatus,
    }
    NodeAddress {
        1 opt "type" string,
        2 opt "address" string,
    }
    NodeAffinity {
        1 "requiredDuringSchedulingIgnoredDuringExecution" NodeSelector,
        2 "preferredDuringSchedulingIgnoredDuringExecution" [PreferredSchedulingTerm],
    }
    NodeAllocatableResourceClaimStatus {
        1 opt "resourceClaimName" string,
        2 "containers" [string],
        3 "resources" {Quantity},
    }
    NodeCondition {
        1 opt "type" string,
        2 opt "status" string,
        3 "lastHeartbeatTime" Time,
        4 "lastTransitionTime" Time,
        5 "reason" string,
        6 "message" string,
    }
    NodeConfigSource { 2 "configMap" ConfigMapNodeConfigSource }
    NodeConfigStatus {
        1 "assigned" NodeConfigSource,
        2 "active" NodeConfigSource,
        3 "lastKnownGood" NodeConfigSource,
        4 "error" string,
    }
    NodeDaemonEndpoints { 1 "kubeletEndpoint" DaemonEndpoint }
    NodeFeatures { 1 opt "supplementalGroupsPolicy" bool }
    NodeList {
        1 "metadata" ListMeta,
        2 "items" [Node],
    }
    NodeRuntimeHandler {
        1 opt "name" string,
        2 "features" NodeRuntimeHandlerFeatures,
    }
    NodeRuntimeHandlerFeatures {
        1 opt "recursiveReadOnlyMounts" bool,
        2 opt "userNamespaces" bool,
    }
    NodeSelector { 1 "nodeSelectorTerms" [NodeSelectorTerm] }
    NodeSelectorRequirement {
        1 opt "key" string,
        2 opt "operator" string,
        3 "values" [string],
    }
    NodeSelectorTerm {
        1 "matchExpressions" [NodeSelectorRequirement],
        2 "matchFields" [NodeSelectorRequirement],
    }
    NodeSpec {
        1 "podCIDR" string,
        2 "externalID" string,
        3 "providerID" string,
        4 "unschedulable" bool,
        5 "taints" [Taint],
        6 "configSource" NodeConfigSource,
        7 "podCIDRs" [string],
    }
    NodeStatus {
        1 "capacity" {Quantity},
        2 "allocatable" {Quantity},
        3 "phase" string,
        4 "conditions" [NodeCondition],
        5 "addresses" [NodeAddress],
        6 "daemonEndpoints" NodeDaemonEndpoints,
        7 "nodeInfo" NodeSystemInfo,
        8 "images" [ContainerImage],
        9 "volumesInUse" [string],
        10 "volumesAttached" [AttachedVolume],
        11 "config" NodeConfigStatus,
        12 "runtimeHandlers" [NodeRuntimeHandler],
        13 "features" NodeFeatures,
        14 "declaredFeatures" [string],
    }
    NodeSwapStatus { 1 opt "capacity" int64 }
    NodeSystemInfo {
        1 opt "machineID" string,
        2 opt "systemUUID" string,
        3 opt "bootID" string,
        4 opt "kernelVersion" string,
        5 opt "osImage" string,
        6 opt "containerRuntimeVersion" string,
        7 opt "kubeletVersion" string,
        8 opt "kubeProxyVersion" string,
        9 opt "operatingSystem" string,
        10 opt "architecture" string,
        11 "swap" NodeSwapStatus,
    }
    ObjectFieldSelector {
        1 "apiVersion" string,
        2 opt "fieldPath" string,
    }
    ObjectReference {
        1 "kind" string,
        2 "namespace" string,
        3 "name" string,
        4 "uid" string,
        5 "apiVersion" string,
        6 "resourceVersion" string,
        7 "fieldPath" string,
    }
    PersistentVolume {
        1 "metadata" ObjectMeta,
        2 "spec" PersistentVolumeSpec,
        3 "status" PersistentVolumeStatus,
    }
    PersistentVolumeClaim {
        1 "metadata" ObjectMeta,
        2 "spec" PersistentVolumeClaimSpec,
        3 "status" PersistentVolumeClaimStatus,
    }
    PersistentVolumeClaimCondition {
        1 opt "type" string,
        2 opt "status" string,
        3 "lastProbeTime" Time,
        4 "lastTransitionTime" Time,
        5 "reason" string,
        6 "message" string,
    }
    PersistentVolumeClaimList {
        1 "metadata" ListMeta,
        2 "items" [PersistentVolumeClaim],
    }
    PersistentVolumeClaimSpec {
        1 "accessModes" [string],
        2 "resources" VolumeResourceRequirements,
        3 "volumeName" string,
        4 "selector" LabelSelector,
        5 opt "storageClassName" string,
        6 opt "volumeMode" string,
        7 "dataSource" TypedLocalObjectReference,
        8 "dataSourceRef" TypedObjectReference,
        9 opt "volumeAttributesClassName" string,
    }
    PersistentVolumeClaimStatus {
        1 "phase" string,
        2 "accessModes" [string],
        3 "capacity" {Quantity},
        4 "conditions" [PersistentVolumeClaimCondition],
        5 "allocatedResources" {Quantity},
        7 "allocatedResourceStatuses" {string},
        8 opt "currentVolumeAttributesClassName" string,
        9 "modifyVolumeStatus" ModifyVolumeStatus,
    }
    PersistentVolumeClaimTemplate {
        1 "metadata" ObjectMeta,
        2 "spec" PersistentVolumeClaimSpec,
    }
    PersistentVolumeClaimVolumeSource {
        1 opt "claimName" string,
        2 "readOnly" bool,
    }
    PersistentVolumeList {
        1 "metadata" ListMeta,
        2 "items" [PersistentVolume],
    }
    PersistentVolumeSource {
        1 "gcePersistentDisk" GCEPersistentDiskVolumeSource,
        2 "awsElasticBlockStore" AWSElasticBlockStoreVolumeSource,
        3 "hostPath" HostPathVolumeSource,
        4 "glusterfs" GlusterfsPersistentVolumeSource,
        5 "nfs" NFSVolumeSource,
        6 "rbd" RBDPersistentVolumeSource,
        7 "iscsi" ISCSIPersistentVolumeSource,
        8 "cinder" CinderPersistentVolumeSource,
        9 "cephfs" CephFSPersistentVolumeSource,
        10 "fc" FCVolumeSource,
        11 "flocker" FlockerVolumeSource,
        12 "flexVolume" FlexPersistentVolumeSource,
        13 "azureFile" AzureFilePersistentVolumeSource,
        14 "vsphereVolume" VsphereVirtualDiskVolumeSource,
        15 "quobyte" QuobyteVolumeSource,
        16 "azureDisk" AzureDiskVolumeSource,
        17 "photonPersistentDisk" PhotonPersistentDiskVolumeSource,
        18 "portworxVolume" PortworxVolumeSource,
        19 "scaleIO" ScaleIOPersistentVolumeSource,
        20 "local" LocalVolumeSource,
        21 "storageos" StorageOSPersistentVolumeSource,
        22 "csi" CSIPersistentVolumeSource,
    }
    PersistentVolumeSpec {
        1 "capacity" {Quantity},
        2 "" PersistentVolumeSource,
        3 "accessModes" [string],
        4 "claimRef" ObjectReference,
        5 "persistentVolumeReclaimPolicy" string,
        6 "storageClassName" string,
        7 "mountOptions" [string],
        8 opt "volumeMode" string,
        9 "nodeAffinity" VolumeNodeAffinity,
        10 opt "volumeAttributesClassName" string,
    }
    PersistentVolumeStatus {
        1 "phase" string,
        2 "message" string,
        3 "reason" string,
        4 "lastPhaseTransitionTime" Time,
    }
    PhotonPersistentDiskVolumeSource {
        1 opt "pdID" string,
        2 "fsType" string,
    }
    Pod {
        1 "metadata" ObjectMeta,
        2 "spec" PodSpec,
        3 "status" PodStatus,
    }
    PodAffinity {
        1 "requiredDuringSchedulingIgnoredDuringExecution" [PodAffinityTerm],
        2 "preferredDuringSchedulingIgnoredDuringExecution" [WeightedPodAffinityTerm],
    }
    PodAffinityTerm {
        1 "labelSelector" LabelSelector,
        2 "namespaces" [string],
        3 opt "topologyKey" string,
        4 "namespaceSelector" LabelSelector,
        5 "matchLabelKeys" [string],
        6 "mismatchLabelKeys" [string],
    }
    PodAntiAffinity {
        1 "requiredDuringSchedulingIgnoredDuringExecution" [PodAffinityTerm],
        2 "preferredDuringSchedulingIgnoredDuringExecution" [WeightedPodAffinityTerm],
    }
    PodCertificateProjection {
        1 "signerName" string,
        2 "keyType" string,
        3 opt "maxExpirationSeconds" int32,
        4 "credentialBundlePath" string,
        5 "keyPath" string,
        6 "certificateChainPath" string,
        7 "userAnnotations" {string},
    }
    PodCondition {
        1 opt "type" string,
        2 opt "status" string,
        3 "lastProbeTime" Time,
        4 "lastTransitionTime" Time,
        5 "reason" string,
        6 "message" string,
        7 "observedGeneration" int64,
    }
    PodDNSConfig {
        1 "nameservers" [string],
        2 "searches" [string],
        3 "options" [PodDNSConfigOption],
    }
    PodDNSConfigOption {
        1 "name" string,
        2 opt "value" string,
    }
    PodExtendedResourceClaimStatus {
        1 "requestMappings" [ContainerExtendedResourceRequest],
        2 opt "resourceClaimName" string,
    }
    PodIP { 1 opt "ip" string }
    PodList {
        1 "metadata" ListMeta,
        2 "items" [Pod],
    }
    PodOS { 1 opt "name" string }
    PodReadinessGate { 1 opt "conditionType" string }
    PodResourceClaim {
        1 opt "name" string,
        3 opt "resourceClaimName" string,
        4 opt "resourceClaimTemplateName" string,
    }
    PodResourceClaimStatus {
        1 opt "name" string,
        2 opt "resourceClaimName" string,
    }
    PodSchedulingGate { 1 opt "name" string }
    PodSchedulingGroup { 1 opt "podGroupName" string }
    PodSecurityContext {
        1 "seLinuxOptions" SELinuxOptions,
        2 opt "runAsUser" int64,
        3 opt "runAsNonRoot" bool,
        4 "supplementalGroups" [int64],
        5 opt "fsGroup" int64,
        6 opt "runAsGroup" int64,
        7 "sysctls" [Sysctl],
        8 "windowsOptions" WindowsSecurityContextOptions,
        9 opt "fsGroupChangePolicy" string,
        10 "seccompProfile" SeccompProfile,
        11 "appArmorProfile" AppArmorProfile,
        12 opt "supplementalGroupsPolicy" string,
        13 opt "seLinuxChangePolicy" string,
    }
    PodSpec {
        1 "volumes" [Volume],
        2 "containers" [Container],
        3 "restartPolicy" string,
        4 opt "terminationGracePeriodSeconds" int64,
        5 opt "activeDeadlineSeconds" int64,
        6 "dnsPolicy" string,
        7 "nodeSelector" {string},
        8 "serviceAccountName" string,
        9 "serviceAccount" string,
        10 "nodeName" string,
        11 "hostNetwork" bool,
        12 "hostPID" bool,
        13 "hostIPC" bool,
        14 "securityContext" PodSecurityContext,
        15 "imagePullSecrets" [LocalObjectReference],
        16 "hostname" string,
        17 "subdomain" string,
        18 "affinity" Affinity,
        19 "schedulerName" string,
        20 "initContainers" [Container],
        21 opt "automountServiceAccountToken" bool,
        22 "tolerations" [Toleration],
        23 "hostAliases" [HostAlias],
        24 "priorityClassName" string,
        25 opt "priority" int32,
        26 "dnsConfig" PodDNSConfig,
        27 opt "shareProcessNamespace" bool,
        28 "readinessGates" [PodReadinessGate],
        29 opt "runtimeClassName" string,
        30 opt "enableServiceLinks" bool,
        31 opt "preemptionPolicy" string,
        32 "overhead" {Quantity},
        33 "topologySpreadConstraints" [TopologySpreadConstraint],
        34 "ephemeralContainers" [EphemeralContainer],
        35 opt "setHostnameAsFQDN" bool,
        36 "os" PodOS,
        37 opt "hostUsers" bool,
        38 "schedulingGates" [PodSchedulingGate],
        39 "resourceClaims" [PodResourceClaim],
        40 "resources" ResourceRequirements,
        41 opt "hostnameOverride" string,
        43 "schedulingGroup" PodSchedulingGroup,
    }
    PodStatus {
        1 "phase" string,
        2 "conditions" [PodCondition],
        3 "message" string,
        4 "reason" string,
        5 "hostIP" string,
        6 "podIP" string,
        7 "startTime" Time,
        8 "containerStatuses" [ContainerStatus],
        9 "qosClass" string,
        10 "initContainerStatuses" [ContainerStatus],
        11 "nominatedNodeName" string,
        12 "podIPs" [PodIP],
        13 "ephemeralContainerStatuses" [ContainerStatus],
        14 "resize" string,
        15 "resourceClaimStatuses" [PodResourceClaimStatus],
        16 "hostIPs" [HostIP],
        17 "observedGeneration" int64,
        18 "extendedResourceClaimStatus" PodExtendedResourceClaimStatus,
        19 "allocatedResources" {Quantity},
        20 "resources" ResourceRequirements,
        21 "nodeAllocatableResourceClaimStatuses" [NodeAllocatableResourceClaimStatus],
    }
    PodTemplate {
        1 "metadata" ObjectMeta,
        2 "template" PodTemplateSpec,
    }
    PodTemplateList {
        1 "metadata" ListMeta,
        2 "items" [PodTemplate],
    }
    PodTemplateSpec {
        1 "metadata" ObjectMeta,
        2 "spec" PodSpec,
    }
    PortStatus {
        1 opt "port" int32,
        2 opt "protocol" string,
        3 opt "error" string,
    }
    PortworxVolumeSource {
        1 opt "volumeID" string,
        2 "fsType" string,
        3 "readOnly" bool,
    }
    PreferredSchedulingTerm {
        1 opt "weight" int32,
        2 "preference" NodeSelectorTerm,
    }
    Probe {
        1 "" ProbeHandler,
        2 "initialDelaySeconds" int32,
        3 "timeoutSeconds" int32,
        4 "periodSeconds" int32,
        5 "successThreshold" int32,
        6 "failureThreshold" int32,
        7 opt "terminationGracePeriodSeconds" int64,
    }
    ProbeHandler {
        1 "exec" ExecAction,
        2 "httpGet" HTTPGetAction,
        3 "tcpSocket" TCPSocketAction,
        4 "grpc" GRPCAction,
    }
    ProjectedVolumeSource {
        1 "sources" [VolumeProjection],
        2 opt "defaultMode" int32,
    }
    QuobyteVolumeSource {
        1 opt "registry" string,
        2 opt "volume" string,
        3 "readOnly" bool,
        4 "user" string,
        5 "group" string,
        6 "tenant" string,
    }
    RBDPersistentVolumeSource {
        1 "monitors" [string],
        2 opt "image" string,
        3 "fsType" string,
        4 "pool" string,
        5 "user" string,
        6 "keyring" string,
        7 "secretRef" SecretReference,
        8 "readOnly" bool,
    }
    RBDVolumeSource {
        1 "monitors" [string],
        2 opt "image" string,
        3 "fsType" string,
        4 "pool" string,
        5 "user" string,
        6 "keyring" string,
        7 "secretRef" LocalObjectReference,
        8 "readOnly" bool,
    }
    ReplicationController {
        1 "metadata" ObjectMeta,
        2 "spec" ReplicationControllerSpec,
        3 "status" ReplicationControllerStatus,
    }
    ReplicationControllerCondition {
        1 opt "type" string,
        2 opt "status" string,
        3 "lastTransitionTime" Time,
        4 "reason" string,
        5 "message" string,
    }
    ReplicationControllerList {
        1 "metadata" ListMeta,
        2 "items" [ReplicationController],
    }
    ReplicationControllerSpec {
        1 opt "replicas" int32,
        2 "selector" {string},
        3 "template" PodTemplateSpec,
        4 "minReadySeconds" int32,
    }
    ReplicationControllerStatus {
        1 opt "replicas" int32,
        2 "fullyLabeledReplicas" int32,
        3 "observedGeneration" int64,
        4 "readyReplicas" int32,
        5 "availableReplicas" int32,
        6 "conditions" [ReplicationControllerCondition],
    }
    ResourceClaim {
        1 opt "name" string,
        2 "request" string,
    }
    ResourceFieldSelector {
        1 "containerName" string,
        2 opt "resource" string,
        3 "divisor" Quantity,
    }
    ResourceHealth {
        1 opt "resourceID" string,
        2 "health" string,
        6 opt "message" string,
    }
    ResourceQuota {
        1 "metadata" ObjectMeta,
        2 "spec" ResourceQuotaSpec,
        3 "status" ResourceQuotaStatus,
    }
    ResourceQuotaList {
        1 "metadata" ListMeta,
        2 "items" [ResourceQuota],
    }
    ResourceQuotaSpec {
        1 "hard" {Quantity},
        2 "scopes" [string],
        3 "scopeSelector" ScopeSelector,
    }
    ResourceQuotaStatus {
        1 "hard" {Quantity},
        2 "used" {Quantity},
    }
    ResourceRequirements {
        1 "limits" {Quantity},
        2 "requests" {Quantity},
        3 "claims" [ResourceClaim],
    }
    ResourceStatus {
        1 opt "name" string,
        2 "resources" [ResourceHealth],
    }
    SELinuxOptions {
        1 "user" string,
        2 "role" string,
        3 "type" string,
        4 "level" string,
    }
    ScaleIOPersistentVolumeSource {
        1 opt "gateway" string,
        2 opt "system" string,
        3 "secretRef" SecretReference,
        4 "sslEnabled" bool,
        5 "protectionDomain" string,
        6 "storagePool" string,
        7 "storageMode" string,
        8 "volumeName" string,
        9 "fsType" string,
        10 "readOnly" bool,
    }
    ScaleIOVolumeSource {
        1 opt "gateway" string,
        2 opt "system" string,
        3 "secretRef" LocalObjectReference,
        4 "sslEnabled" bool,
        5 "protectionDomain" string,
        6 "storagePool" string,
        7 "storageMode" string,
        8 "volumeName" string,
        9 "fsType" string,
        10 "readOnly" bool,
    }
    ScopeSelector { 1 "matchExpressions" [ScopedResourceSelectorRequirement] }
    ScopedResourceSelectorRequirement {
        1 opt "scopeName" string,
        2 opt "operator" string,
        3 "values" [string],
    }
    SeccompProfile {
        1 opt "type" string,
        2 opt "localhostProfile" string,
    }
    Secret {
        1 "metadata" ObjectMeta,
        2 "data" {bytes},
        3 "type" string,
        4 "stringData" {string},
        5 opt "immutable" bool,
    }
    SecretEnvSource {
        1 "" LocalObjectReference,
        2 opt "optional" bool,
    }
    SecretKeySelector {
        1 "" LocalObjectReference,
        2 opt "key" string,
        3 opt "optional" bool,
    }
    SecretList {
        1 "metadata" ListMeta,
        2 "items" [Secret],
    }
    SecretProjection {
        1 "" LocalObjectReference,
        2 "items" [KeyToPath],
        4 opt "optional" bool,
    }
    SecretReference {
        1 "name" string,
        2 "namespace" string,
    }
    SecretVolumeSource {
        1 "secretName" string,
        2 "items" [KeyToPath],
        3 opt "defaultMode" int32,
        4 opt "optional" bool,
    }
    SecurityContext {
        1 "capabilities" Capabilities,
        2 opt "privileged" bool,
        3 "seLinuxOptions" SELinuxOptions,
        4 opt "runAsUser" int64,
        5 opt "runAsNonRoot" bool,
        6 opt "readOnlyRootFilesystem" bool,
        7 opt "allowPrivilegeEscalation" bool,
        8 opt "runAsGroup" int64,
        9 opt "procMount" string,
        10 "windowsOptions" WindowsSecurityContextOptions,
        11 "seccompProfile" SeccompProfile,
        12 "appArmorProfile" AppArmorProfile,
    }
    Service {
        1 "metadata" ObjectMeta,
        2 "spec" ServiceSpec,
        3 "status" ServiceStatus,
    }
    ServiceAccount {
        1 "metadata" ObjectMeta,
        2 "secrets" [ObjectReference],
        3 "imagePullSecrets" [LocalObjectReference],
        4 opt "automountServiceAccountToken" bool,
    }
    ServiceAccountList {
        1 "metadata" ListMeta,
        2 "items" [ServiceAccount],
    }
    ServiceAccountTokenProjection {
        1 "audience" string,
        2 opt "expirationSeconds" int64,
        3 opt "path" string,
    }
    ServiceList {
        1 "metadata" ListMeta,
        2 "items" [Service],
    }
    ServicePort {
        1 "name" string,
        2 "protocol" string,
        3 opt "port" int32,
        4 "targetPort" IntOrString,
        5 "nodePort" int32,
        6 opt "appProtocol" string,
    }
    ServiceSpec {
        1 "ports" [ServicePort],
        2 "selector" {string},
        3 "clusterIP" string,
        4 "type" string,
        5 "externalIPs" [string],
        7 "sessionAffinity" string,
        8 "loadBalancerIP" string,
        9 "loadBalancerSourceRanges" [string],
        10 "externalName" string,
        11 "externalTrafficPolicy" string,
        12 "healthCheckNodePort" int32,
        13 "publishNotReadyAddresses" bool,
        14 "sessionAffinityConfig" SessionAffinityConfig,
        17 opt "ipFamilyPolicy" string,
        18 "clusterIPs" [string],
        19 "ipFamilies" [string],
        20 opt "allocateLoadBalancerNodePorts" bool,
        21 opt "loadBalancerClass" string,
        22 opt "internalTrafficPolicy" string,
        23 opt "trafficDistribution" string,
    }
    ServiceStatus {
        1 "loadBalancer" LoadBalancerStatus,
        2 "conditions" [Condition],
    }
    SessionAffinityConfig { 1 "clientIP" ClientIPConfig }
    SleepAction { 1 opt "seconds" int64 }
    StorageOSPersistentVolumeSource {
        1 "volumeName" string,
        2 "volumeNamespace" string,
        3 "fsType" string,
        4 "readOnly" bool,
        5 "secretRef" ObjectReference,
    }
    StorageOSVolumeSource {
        1 "volumeName" string,
        2 "volumeNamespace" string,
        3 "fsType" string,
        4 "readOnly" bool,
        5 "secretRef" LocalObjectReference,
    }
    Sysctl {
        1 opt "name" string,
        2 opt "value" string,
    }
    TCPSocketAction {
        1 "port" IntOrString,
        2 "host" string,
    }
    Taint {
        1 opt "key" string,
        2 "value" string,
        3 opt "effect" string,
        4 "timeAdded" Time,
    }
    Toleration {
        1 "key" string,
        2 "operator" string,
        3 "value" string,
        4 "effect" string,
        5 opt "tolerationSeconds" int64,
    }
    TopologySelectorLabelRequirement {
        1 opt "key" string,
        2 "values" [string],
    }
    TopologySelectorTerm {
        1 "matchLabelExpressions" [TopologySelectorLabelRequirement],
    }
    TopologySpreadConstraint {
        1 opt "maxSkew" int32,
        2 opt "topologyKey" string,
        3 opt "whenUnsatisfiable" string,
        4 "labelSelector" LabelSelector,
        5 opt "minDomains" int32,
        6 opt "nodeAffinityPolicy" string,
        7 opt "nodeTaintsPolicy" string,
        8 "matchLabelKeys" [string],
    }
    TypedLocalObjectReference {
        1 opt "apiGroup" string,
        2 opt "kind" string,
        3 opt "name" string,
    }
    TypedObjectReference {
        1 opt "apiGroup" string,
        2 opt "kind" string,
        3 opt "name" string,
        4 opt "namespace" string,
    }
    Volume {
        1 opt "name" string,
        2 "" VolumeSource,
    }
    VolumeDevice {
        1 opt "name" string,
        2 opt "devicePath" string,
    }
    VolumeMount {
        1 opt "name" string,
        2 "readOnly" bool,
        3 opt "mountPath" string,
        4 "subPath" string,
        5 opt "mountPropagation" string,
        6 "subPathExpr" string,
        7 opt "recursiveReadOnly" string,
    }
    VolumeMountStatus {
        1 opt "name" string,
        2 opt "mountPath" string,
        3 "readOnly" bool,
        4 opt "recursiveReadOnly" string,
        5 "volumeStatus" VolumeStatus,
    }
    VolumeNodeAffinity { 1 "required" NodeSelector }
    VolumeProjection {
        1 "secret" SecretProjection,
        2 "downwardAPI" DownwardAPIProjection,
        3 "configMap" ConfigMapProjection,
        4 "serviceAccountToken" ServiceAccountTokenProjection,
        5 "clusterTrustBundle" ClusterTrustBundleProjection,
        6 "podCertificate" PodCertificateProjection,
    }
    VolumeResourceRequirements {
        1 "limits" {Quantity},
        2 "requests" {Quantity},
    }
    VolumeSource {
        1 "hostPath" HostPathVolumeSource,
        2 "emptyDir" EmptyDirVolumeSource,
        3 "gcePersistentDisk" GCEPersistentDiskVolumeSource,
        4 "awsElasticBlockStore" AWSElasticBlockStoreVolumeSource,
        5 "gitRepo" GitRepoVolumeSource,
        6 "secret" SecretVolumeSource,
        7 "nfs" NFSVolumeSource,
        8 "iscsi" ISCSIVolumeSource,
        9 "glusterfs" GlusterfsVolumeSource,
        10 "persistentVolumeClaim" PersistentVolumeClaimVolumeSource,
        11 "rbd" RBDVolumeSource,
        12 "flexVolume" FlexVolumeSource,
        13 "cinder" CinderVolumeSource,
        14 "cephfs" CephFSVolumeSource,
        15 "flocker" FlockerVolumeSource,
        16 "downwardAPI" DownwardAPIVolumeSource,
        17 "fc" FCVolumeSource,
        18 "azureFile" AzureFileVolumeSource,
        19 "configMap" ConfigMapVolumeSource,
        20 "vsphereVolume" VsphereVirtualDiskVolumeSource,
        21 "quobyte" QuobyteVolumeSource,
        22 "azureDisk" AzureDiskVolumeSource,
        23 "photonPersistentDisk" PhotonPersistentDiskVolumeSource,
        24 "portworxVolume" PortworxVolumeSource,
        25 "scaleIO" ScaleIOVolumeSource,
        26 "projected" ProjectedVolumeSource,
        27 "storageos" StorageOSVolumeSource,
        28 "csi" CSIVolumeSource,
        29 "ephemeral" EphemeralVolumeSource,
        30 "image" ImageVolumeSource,
    }
    VolumeStatus { 1 "image" ImageVolumeStatus }
    VsphereVirtualDiskVolumeSource {
        1 opt "volumePath" string,
        2 "fsType" string,
        3 "storagePolicyName" string,
        4 "storagePolicyID" string,
    }
    WeightedPodAffinityTerm {
        1 opt "weight" int32,
        2 "podAffinityTerm" PodAffinityTerm,
    }
    WindowsSecurityContextOptions {
        1 opt "gmsaCredentialSpecName" string,
        2 opt "gmsaCredentialSpec" string,
        3 opt "runAsUserName" string,
        4 opt "hostProcess" bool,
    }
}
